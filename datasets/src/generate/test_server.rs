//! A small real HTTP server for the tests, on a free port of this machine.
//!
//! In:    a function from request to response.
//! Out:   an address; what was asked; how many requests were under way at most.
//! Never: outlives its test.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// One request: its number from 0 and its body.
pub(crate) struct Asked {
    pub(crate) number: usize,
    pub(crate) body: Value,
}

/// What the server does with a request.
pub(crate) enum Respond {
    /// Status, further header lines, body.
    With(u16, &'static str, String),
    /// These bytes, then the connection closes.
    Raw(Vec<u8>),
    /// The same after a pause.
    Late(Duration, Box<Respond>),
}

pub(crate) struct TestServer {
    pub(crate) address: String,
    pub(crate) asked: Arc<Mutex<Vec<Value>>>,
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
    pub(crate) most_at_once: Arc<AtomicUsize>,
}

impl TestServer {
    pub(crate) fn start(respond: impl Fn(&Asked) -> Respond + Send + Sync + 'static) -> TestServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = TestServer {
            address: format!("http://{}/v1", listener.local_addr().unwrap()),
            asked: Arc::default(),
            heads: Arc::default(),
            most_at_once: Arc::default(),
        };
        let (asked, heads, most) = (server.asked.clone(), server.heads.clone(), server.most_at_once.clone());
        let (respond, now, count) = (Arc::new(respond), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (respond, now, count) = (respond.clone(), now.clone(), count.clone());
                let (asked, heads, most) = (asked.clone(), heads.clone(), most.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some((head, body)) = read_request(&stream) else { return };
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    asked.lock().unwrap().push(body.clone());
                    heads.lock().unwrap().push(head);
                    let request = Asked { number: count.fetch_add(1, Ordering::SeqCst), body };
                    let response = respond(&request);
                    let bytes = bytes_of(response);
                    now.fetch_sub(1, Ordering::SeqCst);
                    let _ = stream.write_all(&bytes);
                });
            }
        });
        server
    }

    pub(crate) fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn bytes_of(response: Respond) -> Vec<u8> {
    match response {
        Respond::Raw(bytes) => bytes,
        Respond::Late(pause, response) => {
            std::thread::sleep(pause);
            bytes_of(*response)
        }
        Respond::With(status, headers, body) => format!(
            "HTTP/1.1 {status} Words\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    }
}

fn read_request(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).unwrap_or_default()))
}

/// A completion whose message is `content`.
pub(crate) fn says(content: &str) -> Respond {
    let body = json!({
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20},
    });
    Respond::With(200, "", body.to_string())
}

/// One pair about the first words of the chunk: the same reply for the same request.
pub(crate) fn good(asked: &Asked) -> Respond {
    let user = asked.body["messages"][1]["content"].as_str().unwrap();
    let chunk = user.rsplit("\n\nTEXT\n").next().unwrap();
    let words: Vec<&str> = chunk.split_whitespace().take(8).collect();
    let pair = json!({"question": format!("What follows {}?", words[..3].join(" ")), "answer": words.join(" ")});
    says(&json!({"pairs": [pair]}).to_string())
}
