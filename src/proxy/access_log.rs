//! One line per request, where the configuration asks for it. The worker formats the line and hands it over; a thread
//! writes it.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::config::{AccessLog as Form, Log};
use crate::os::clock;
use crate::os::line_writer::{Lines, LogFile};

/// What is known of a request when it has ended.
#[derive(Debug, Default, Serialize)]
pub struct AccessLine {
    /// When the request ended, in UTC.
    pub time: String,
    /// The client's address.
    pub client: String,
    /// As the client sent it, like the host and the path.
    pub method: String,
    pub host: String,
    /// Path and query.
    pub path: String,
    /// `HTTP/2.0`, `HTTP/1.1` or `HTTP/1.0`.
    pub protocol: &'static str,
    /// The status that the client was sent; 0 where it was sent none.
    pub status: u16,
    /// Payload bytes of the response.
    pub bytes: u64,
    /// Seconds from the complete request head to the last byte.
    pub duration: f64,
    pub service: String,
    /// The color that served it.
    pub color: &'static str,
    /// The epoch of its route.
    pub epoch: u64,
    /// The address of the upstream that was tried last.
    pub upstream: String,
    pub request_id: String,
    pub referer: String,
    pub user_agent: String,
    /// How it ended, in one word: `ok`, `tunnel`, or that of a fault.
    pub end: &'static str,
}

/// Where the workers send lines. A clone sends to the same log.
#[derive(Clone)]
pub struct AccessLog(Option<(Form, Lines)>);

impl AccessLog {
    /// Opens the log and starts its thread, unless it is off.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn open(config: &Log) -> io::Result<Self> {
        if config.access == Form::Off {
            return Ok(AccessLog(None));
        }
        let lines = match &config.access_file {
            Some(path) => Lines::to(LogFile::open(path)?, "access-log")?,
            None => Lines::to(io::stdout(), "access-log")?,
        };
        Ok(AccessLog(Some((config.access, lines))))
    }

    /// Whether the log takes lines; without it none has to be made.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Hands a line over. Never waits.
    pub fn write(&self, line: &AccessLine) {
        if let Some((form, lines)) = &self.0 {
            match form {
                Form::Off => {}
                Form::Json => lines.send(json(line)),
                Form::Combined => lines.send(combined(line)),
            }
        }
    }

    /// Opens the log file anew, after it was renamed. Never waits.
    pub fn reopen(&self) {
        if let Some((_, lines)) = &self.0 {
            lines.reopen();
        }
    }

    /// Says why lines are being lost, as a sentence for `problems`. `None` while none are.
    pub fn problem(&self, config: &Log) -> Option<String> {
        let (_, lines) = self.0.as_ref()?;
        let place = config.access_file.as_ref().map_or("standard output".into(), |path| path.display().to_string());
        let why = lines.problem()?;
        Some(format!("access log {place}: {why}; lines that do not fit in memory are lost; trying again"))
    }

    /// Waits until every line is written.
    pub fn finish(&self) {
        if let Some((_, lines)) = &self.0 {
            lines.finish();
        }
    }
}

fn json(line: &AccessLine) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn combined(line: &AccessLine) -> Vec<u8> {
    let time = jiff::Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000");
    let AccessLine { client, method, path, protocol, status, bytes, referer, user_agent, .. } = line;
    let AccessLine { service, color, epoch, upstream, request_id, duration, end, .. } = line;
    let [method, path, referer, user_agent] = [method, path, referer, user_agent].map(|text| quote(text));
    let [service, color, upstream, protocol] =
        [service, *color, upstream, *protocol].map(|text| if text.is_empty() { "-" } else { text });
    format!(
        "{client} - - [{time}] \"{method} {path} {protocol}\" {status} {bytes} \"{referer}\" \"{user_agent}\" \
         {service} {color} {epoch} {upstream} {duration:.6} {request_id} {end}\n"
    )
    .into_bytes()
}

/// Escapes quotes and control characters: a value must not end its field, nor steer the terminal that shows the log.
fn quote(text: &str) -> String {
    if text.is_empty() {
        return "-".into();
    }
    let mut quoted = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if letter.is_control() => quoted.extend(letter.escape_unicode()),
            _ => quoted.push(letter),
        }
    }
    quoted
}

impl AccessLine {
    /// Stamps the line with the present time.
    pub fn ended(mut self, duration: Duration) -> Self {
        self.time = clock::utc();
        self.duration = duration.as_secs_f64();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_combined_line_has_every_column_whatever_is_known() {
        let known = AccessLine {
            client: "192.0.2.7".into(),
            method: "GET".into(),
            path: "/a\"b".into(),
            protocol: "HTTP/1.1",
            status: 200,
            service: "recall".into(),
            color: "blue",
            upstream: "127.0.0.1:8000".into(),
            user_agent: "curl\u{9b}2J".into(),
            end: "ok",
            ..AccessLine::default()
        };
        let refused =
            AccessLine { client: "192.0.2.7".into(), status: 400, end: "bad_request", ..AccessLine::default() };
        for (line, request) in [
            (known, "\"GET /a\\\"b HTTP/1.1\" 200 0 \"-\" \"curl\\u{9b}2J\" recall blue 0 "),
            (refused, "\"- - -\" 400 0 \"-\" \"-\" - - 0 - "),
        ] {
            let text = String::from_utf8(combined(&line)).expect("text");
            assert!(text.contains(request), "{text}");
        }
    }
}
