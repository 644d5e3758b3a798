//! One line per request, when asked for. The worker formats it and hands it over; a thread writes it. When the thread
//! falls behind, lines are dropped and counted rather than a request delayed.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use serde::Serialize;

use crate::clock;
use crate::config::{AccessLog as Form, Log};

/// Lines that wait to be written at most.
const WAITING_MAX: usize = 16 * 1024;

/// What is known of a request when it has ended.
#[derive(Debug, Default, Serialize)]
pub struct Line {
    /// When it ended, UTC.
    pub time: String,
    /// The client's address.
    pub client: String,
    /// As sent.
    pub method: String,
    /// As sent.
    pub host: String,
    /// Path and query as sent.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub protocol: &'static str,
    /// The status sent to the client; 0 when there was none.
    pub status: u16,
    /// Payload bytes sent to the client.
    pub bytes: u64,
    /// Seconds from the complete request head to the last byte.
    pub duration: f64,
    /// The service.
    pub service: String,
    /// Who served.
    pub color: &'static str,
    /// Under which epoch.
    pub epoch: u64,
    /// The upstream tried last.
    pub upstream: String,
    /// `X-Request-Id`
    pub request_id: String,
    /// `Referer`
    pub referer: String,
    /// `User-Agent`
    pub user_agent: String,
    /// How it ended, in one word: `ok`, `tunnel` or a fault's.
    pub end: &'static str,
}

/// The workers' end of the log; cheap to clone.
#[derive(Clone)]
pub struct AccessLog {
    form: Form,
    lines: Option<SyncSender<Vec<u8>>>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the log and starts its thread, unless it is off.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn open(config: &Log) -> io::Result<Self> {
        let dropped = Arc::new(AtomicU64::new(0));
        if config.access == Form::Off {
            return Ok(AccessLog { form: Form::Off, lines: None, dropped });
        }
        let out: Box<dyn Write + Send> = match &config.access_file {
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
            None => Box::new(io::stdout()),
        };
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&waiting, out, &counted))?;
        Ok(AccessLog { form: config.access, lines: Some(lines), dropped })
    }

    /// Whether lines are wanted at all.
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Hands a line over. Never waits.
    pub fn write(&self, line: &Line) {
        let Some(lines) = &self.lines else { return };
        let bytes = match self.form {
            Form::Off => return,
            Form::Json => json(line),
            Form::Combined => combined(line),
        };
        if lines.try_send(bytes).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn write_all(waiting: &Receiver<Vec<u8>>, out: Box<dyn Write + Send>, dropped: &AtomicU64) {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    while let Ok(mut line) = waiting.recv() {
        loop {
            // A full disk must not end the log: the line is lost, the next one may not be.
            let _ = out.write_all(&line);
            match waiting.try_recv() {
                Ok(next) => line = next,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let _ = out.flush();
        let lost = dropped.swap(0, Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "access log: its writer could not keep up, lines were dropped");
        }
    }
}

fn json(line: &Line) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn combined(line: &Line) -> Vec<u8> {
    let time = jiff::Timestamp::now().strftime("%d/%b/%Y:%H:%M:%S +0000");
    let Line { client, method, path, protocol, status, bytes, referer, user_agent, .. } = line;
    let Line { service, color, epoch, upstream, request_id, duration, end, .. } = line;
    let [path, referer, user_agent] = [path, referer, user_agent].map(|text| quote(text));
    format!(
        "{client} - - [{time}] \"{method} {path} {protocol}\" {status} {bytes} \"{referer}\" \"{user_agent}\" \
         {service} {color} {epoch} {upstream} {duration:.6} {request_id} {end}\n"
    )
    .into_bytes()
}

/// Keeps a value inside its quotes.
fn quote(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.replace('\\', "\\\\").replace('"', "\\\"") }
}

impl Line {
    /// Stamps the line with the present time.
    pub fn ended(mut self, duration: Duration) -> Self {
        self.time = clock::utc();
        self.duration = duration.as_secs_f64();
        self
    }
}
