//! Any PROXY header is read to an end or refused, and asks for no more than the longest one; what it names is written and
//! read again as the same.
#![no_main]

use cutover::proxy_protocol::{Step, Version, read, write};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut at = 0;
    let ends = loop {
        let want = match read(&bytes[..at]) {
            Err(_) => return,
            Ok(Step::Done(ends)) => break ends,
            Ok(Step::Read(n)) => n,
            Ok(Step::ReadLine(n)) => bytes[at..].iter().position(|byte| *byte == b'\n').map_or(n, |end| n.min(end + 1)),
        };
        assert!(want > 0 && at + want <= 16 + 4096);
        if at + want > bytes.len() {
            return;
        }
        at += want;
    };
    for version in [Version::V1, Version::V2] {
        let header = write(version, ends);
        let Ok(Step::Done(again)) = read(&header) else { panic!("{version:?} of {ends:?}") };
        let plain = |ends: cutover::proxy_protocol::Ends| {
            [ends.client, ends.server].map(|end| (end.ip().to_canonical(), end.port()))
        };
        assert_eq!(again.map(plain), ends.map(plain), "{version:?}");
    }
});
