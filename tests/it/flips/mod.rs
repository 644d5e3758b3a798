//! Changing color: every way in, the gate, the drain, and no failed request.

mod drain;
mod gate;
mod load;
mod long_lived;
mod taken_back;
mod ways;

use crate::harness::{Conn, Cutover, Setup, Upstream};

/// Two colors that say who they are.
fn colors() -> (Upstream, Upstream) {
    (Upstream::saying("blue"), Upstream::saying("green"))
}

fn two_colors() -> (Upstream, Upstream, Cutover) {
    let (blue, green) = colors();
    let cutover = Setup::of(&blue, &green).start();
    (blue, green, cutover)
}

/// Answers `/hold` when something comes out of the channel, and anything else at once.
fn holding(name: &'static str) -> (Upstream, std::sync::mpsc::Sender<()>) {
    let (go, gone) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let upstream = Upstream::start(move |conn: &mut Conn| {
        loop {
            let request = conn.request()?;
            if request.target() == "/hold" {
                let _ = gone.lock().unwrap().recv();
            }
            conn.send(crate::harness::plain("200 OK", name))?;
        }
    });
    (upstream, go)
}

const HOLD: &str = "GET /hold HTTP/1.1\r\nHost: app\r\n\r\n";

/// Sends a request that blue holds back, and waits until it is there.
fn held(cutover: &Cutover) -> crate::harness::Client {
    let mut client = cutover.client();
    client.send(HOLD);
    cutover.until_app("a request is held", |app| app["colors"]["blue"]["in_flight"] == 1);
    client
}
