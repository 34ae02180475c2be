//! One chat completion from the given address, with retries.
//!
//! In:    a system and a user text.
//! Out:   the model's words and the tokens used.
//! Never: follows a redirect, uses a proxy, reads more than the bound, retries what cannot succeed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::http::{Response, header};
use ureq::{Agent, Body, Error};

use super::address::Address;
use super::error::{GenerateError, short};
use super::job::{Asking, Limits};
use crate::random::Random;

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Characters kept of what a server said.
const MESSAGE_CHARACTERS: usize = 300;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) text: String,
    pub(crate) prompt_tokens: u64,
    pub(crate) reply_tokens: u64,
}

/// Why nothing came back.
#[derive(Debug)]
pub(crate) enum AskError {
    /// No chunk can succeed.
    Fatal(Box<GenerateError>),
    /// This one did not.
    Failed(String),
    /// The stop flag was set between two attempts.
    Stopped,
}

/// How one attempt ended.
enum Attempt {
    Done(Completion),
    Again { reason: String, after: Option<Duration> },
    WithoutJsonMode,
    Over(AskError),
}

/// Shared by all threads.
pub(crate) struct Client {
    agent: Agent,
    address: Address,
    key: Option<String>,
    limits: Limits,
    /// Whether `response_format` is sent; a server that does not know it is asked without.
    json_mode: AtomicBool,
    /// Whether it ever spoke HTTP.
    answered: AtomicBool,
}

impl Client {
    pub(crate) fn new(address: &Address, key: Option<&str>, limits: Limits) -> Client {
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(limits.timeout))
            .timeout_connect(Some(CONNECT_MAX))
            .max_idle_connections_per_host(limits.concurrency)
            .build();
        Client {
            agent: config.new_agent(),
            address: address.clone(),
            key: key.map(|key| format!("Bearer {key}")),
            limits,
            json_mode: AtomicBool::new(true),
            answered: AtomicBool::new(false),
        }
    }

    /// Asks until there is an answer or no hope. `random` draws the pauses; `retrying` hears of each.
    pub(crate) fn ask(
        &self,
        request: &Value,
        random: &mut Random,
        stop: &dyn Fn() -> bool,
        retrying: &dyn Fn(&str, Duration),
    ) -> Result<Completion, AskError> {
        let mut attempt = 1;
        loop {
            if stop() {
                return Err(AskError::Stopped);
            }
            let (reason, after) = match self.attempt(request) {
                Attempt::Done(completion) => return Ok(completion),
                Attempt::Over(error) => return Err(error),
                Attempt::WithoutJsonMode => continue,
                Attempt::Again { reason, after } => (reason, after),
            };
            if attempt >= self.limits.attempts {
                return Err(AskError::Failed(format!("{reason} ({attempt} attempts)")));
            }
            if let Some(wanted) = after.filter(|&wanted| wanted > self.limits.pause_max) {
                let (wanted, most) = (wanted.as_secs(), self.limits.pause_max.as_secs());
                return Err(AskError::Failed(format!(
                    "{reason}; asks for a pause of {wanted} s, at most {most} s are waited"
                )));
            }
            let pause = after.unwrap_or_else(|| self.pause(attempt, random));
            retrying(&reason, pause);
            sleep(pause, stop);
            attempt += 1;
        }
    }

    /// Doubles with each attempt; between half of that and all of it.
    fn pause(&self, attempt: usize, random: &mut Random) -> Duration {
        let doubled = self.limits.pause.saturating_mul(1 << (attempt - 1).min(20)).min(self.limits.pause_max);
        doubled.mul_f64(0.5 + random.below(1001) as f64 / 2000.0)
    }

    fn attempt(&self, request: &Value) -> Attempt {
        let mut body = request.clone();
        let json_mode = self.json_mode.load(Ordering::Relaxed);
        if json_mode {
            body["response_format"] = json!({"type": "json_object"});
        }
        let mut post = self.agent.post(self.address.completions()).header(header::ACCEPT, "application/json");
        if let Some(key) = &self.key {
            post = post.header(header::AUTHORIZATION, key);
        }
        match post.send_json(&body) {
            Ok(response) => {
                self.answered.store(true, Ordering::Relaxed);
                self.read(response, json_mode)
            }
            Err(error) => self.no_response(error),
        }
    }

    fn no_response(&self, error: Error) -> Attempt {
        let reason = short(&error.to_string(), MESSAGE_CHARACTERS);
        let refused = match &error {
            Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            Error::ConnectionFailed | Error::HostNotFound => true,
            Error::BadUri(_) | Error::Http(_) | Error::Tls(_) | Error::Rustls(_) => {
                let address = self.address.base().to_string();
                return Attempt::Over(fatal(GenerateError::Address { address, reason }));
            }
            _ => false,
        };
        if refused && !self.answered.load(Ordering::Relaxed) {
            let address = self.address.base().to_string();
            return Attempt::Over(fatal(GenerateError::NotListening { address, reason }));
        }
        Attempt::Again { reason, after: None }
    }

    fn read(&self, mut response: Response<Body>, json_mode: bool) -> Attempt {
        let status = response.status().as_u16();
        if (300..400).contains(&status) {
            let target = text_header(&response, header::LOCATION).unwrap_or_default();
            let (address, target) = (self.address.base().to_string(), short(&target, MESSAGE_CHARACTERS));
            return Attempt::Over(fatal(GenerateError::Redirected { address, target }));
        }
        let after = text_header(&response, header::RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
        let after = after.map(Duration::from_secs);
        let bytes_max = self.limits.reply_bytes_max;
        let bytes = match response.body_mut().with_config().limit(bytes_max).read_to_vec() {
            Ok(bytes) => bytes,
            Err(Error::BodyExceedsLimit(_)) => {
                return Attempt::Over(AskError::Failed(format!("the reply is longer than {bytes_max} bytes")));
            }
            Err(error) => {
                let reason = format!("the reply broke off: {}", short(&error.to_string(), MESSAGE_CHARACTERS));
                return Attempt::Again { reason, after };
            }
        };
        match status {
            200..300 => completion(&bytes),
            408 | 429 | 500.. => {
                Attempt::Again { reason: format!("answers {status}: {}", server_message(&bytes)), after }
            }
            _ => self.refused(status, &server_message(&bytes), json_mode),
        }
    }

    fn refused(&self, status: u16, message: &str, json_mode: bool) -> Attempt {
        let names_format =
            ["response_format", "response format", "json_object"].iter().any(|word| message.contains(word));
        if matches!(status, 400 | 422) && names_format && json_mode {
            self.json_mode.store(false, Ordering::Relaxed);
            return Attempt::WithoutJsonMode;
        }
        // These may lie in the one request: too long for the model's context.
        if matches!(status, 400 | 413 | 422) {
            return Attempt::Over(AskError::Failed(format!("answers {status}: {message}")));
        }
        let hint = match status {
            401 | 403 => "; name the environment variable that holds the key with --key-env",
            404 => "; is the model's name right, and does the address end in /v1?",
            _ => "",
        };
        let (address, message) = (self.address.base().to_string(), message.to_string());
        Attempt::Over(fatal(GenerateError::Refused { address, status, message, hint }))
    }
}

/// The body of a request, but for `response_format`.
pub(crate) fn request(asking: &Asking, system: &str, user: &str, seed: u64) -> Value {
    json!({
        "model": asking.model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        "temperature": asking.temperature,
        // Servers read it as a signed 32-bit number.
        "seed": seed & 0x7fff_ffff,
        "max_tokens": asking.reply_tokens_max,
        "stream": false,
    })
}

fn completion(bytes: &[u8]) -> Attempt {
    let again = |reason: String| Attempt::Again { reason, after: None };
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else {
        return again(format!("the reply is not JSON: {}", server_message(bytes)));
    };
    let text = match &body["choices"][0]["message"]["content"] {
        Value::String(text) => text.clone(),
        // A model that spent all its tokens on thoughts has no content.
        Value::Null if body["choices"][0]["message"].is_object() => String::new(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => return again(format!("the reply holds no choices[0].message.content: {}", server_message(bytes))),
    };
    let tokens = |name: &str| body["usage"][name].as_u64().unwrap_or(0);
    let (prompt_tokens, reply_tokens) = (tokens("prompt_tokens"), tokens("completion_tokens"));
    Attempt::Done(Completion { text, prompt_tokens, reply_tokens })
}

/// `error.message` as OpenAI's protocol has it, else the beginning of the body.
fn server_message(bytes: &[u8]) -> String {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let told = [&body["error"]["message"], &body["error"], &body["message"], &body["detail"]];
    let message = told.iter().find_map(|value| value.as_str()).map(str::to_string);
    let head = || String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MESSAGE_CHARACTERS)]).into_owned();
    short(&message.unwrap_or_else(head), MESSAGE_CHARACTERS)
}

fn text_header(response: &Response<Body>, name: header::HeaderName) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_string)
}

fn fatal(error: GenerateError) -> AskError {
    AskError::Fatal(Box::new(error))
}

/// Sleeps in short pieces, so that stopping takes effect.
fn sleep(time: Duration, stop: &dyn Fn() -> bool) {
    let end = Instant::now() + time;
    while !stop() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
