//! A page, taken apart: elements with their attributes, text, figures.

use serde_json::Value;

/// Elements that have no end.
const VOID: [&str; 3] = ["meta", "link", "input"];
/// Elements whose text is no markup.
const RAW: [&str; 2] = ["script", "style"];

/// A start tag.
#[derive(Debug)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
}

impl Element {
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn is(&self, name: &str, value: &str) -> bool {
        self.attribute(name) == Some(value)
    }
}

/// A page whose tags close in the order they were opened.
pub struct Page {
    pub source: String,
    pub elements: Vec<Element>,
    texts: Vec<String>,
    scripts: Vec<(String, String)>,
}

impl Page {
    /// Takes a page apart as a browser does; a page that is not well formed fails the test.
    pub fn of(source: &str) -> Page {
        let mut page =
            Page { source: source.to_string(), elements: Vec::new(), texts: Vec::new(), scripts: Vec::new() };
        let mut rest = source.strip_prefix("<!doctype html>").expect("it says what it is");
        let mut open: Vec<String> = Vec::new();
        while let Some(at) = rest.find('<') {
            page.texts.push(unescaped(&rest[..at]));
            let end = tag_end(&rest[at..]) + at;
            let tag = &rest[at + 1..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "closed in another order");
                continue;
            }
            let element = element(tag.trim_end_matches('/'));
            let name = element.name.clone();
            if RAW.contains(&name.as_str()) {
                let close = format!("</{name}>");
                let end = rest.find(&close).expect("it ends");
                let kind = element.attribute("type").unwrap_or_default().to_string();
                page.scripts.push((kind, rest[..end].to_string()));
                rest = &rest[end + close.len()..];
            } else if !tag.ends_with('/') && !VOID.contains(&name.as_str()) {
                open.push(name);
            }
            page.elements.push(element);
        }
        assert!(open.is_empty(), "{open:?}");
        page
    }

    /// What a reader sees and hears, blanks made one.
    pub fn text(&self) -> String {
        self.texts.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    pub fn count(&self, name: &str) -> usize {
        self.elements.iter().filter(|one| one.name == name).count()
    }

    pub fn count_where(&self, name: &str, key: &str, value: &str) -> usize {
        self.elements.iter().filter(|one| one.name == name && one.is(key, value)).count()
    }

    pub fn count_class(&self, name: &str, class: &str) -> usize {
        self.count_where(name, "class", class)
    }

    pub fn has(&self, name: &str, key: &str, value: &str) -> bool {
        self.count_where(name, key, value) == 1
    }

    pub fn script(&self, kind: &str) -> String {
        self.scripts.iter().find(|(other, _)| other == kind).unwrap().1.clone()
    }

    /// The figures for the page's script.
    pub fn figures(&self) -> Value {
        serde_json::from_str(&self.script("application/json")).unwrap()
    }
}

/// The closing bracket, outside quotes.
fn tag_end(text: &str) -> usize {
    let mut quoted = false;
    let end = text.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '>' && !quoted
    });
    end.expect("a tag ends").0
}

fn element(tag: &str) -> Element {
    let (name, mut rest) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    let mut attributes = Vec::new();
    while !rest.trim().is_empty() {
        rest = rest.trim_start();
        let end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let key = rest[..end].to_string();
        rest = &rest[end..];
        let mut value = String::new();
        if let Some(quoted) = rest.strip_prefix("=\"") {
            let end = quoted.find('"').expect("a value is quoted");
            value = unescaped(&quoted[..end]);
            rest = &quoted[end + 1..];
            assert!(rest.is_empty() || rest.starts_with(' '), "{tag}");
        } else {
            assert!(rest.is_empty() || rest.starts_with(' '), "an attribute without quotes: {tag}");
        }
        attributes.push((key, value));
    }
    Element { name: name.to_string(), attributes }
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
    text.replace("&amp;", "&")
}
