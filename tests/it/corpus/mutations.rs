//! The corpora with bytes changed at random: whatever they become, what reaches the other side can be read in one way
//! only, nobody gets another's answer, and the proxy goes on. `CUTOVER_SEED` replays one seed.

use std::ops::Range;

use super::notation::cases;
use super::requests::Lane;
use super::script::written;
use super::upstreams::{self, NOT_ASKED, Play, Played};
use super::{notation, strict};

const SEEDS: u64 = 600;

/// Bytes that mean something to some parser.
const TELLING: &[u8] = b"\r\n\t \0:;,=/\\#?%\"'_-0159aAfFx\x0b\x0c\x7f\x80\xff";

/// Numbers that follow from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % n
    }
}

fn mutated(dice: &mut Dice, originals: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = originals[dice.below(originals.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        let telling = TELLING[dice.below(TELLING.len())];
        match dice.below(5) {
            0 => bytes[at] = telling,
            1 => bytes.insert(at, telling),
            2 => drop(bytes.remove(at)),
            3 => {
                let end = (at + 1 + dice.below(12)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes[at] ^= 1 << dice.below(8),
        }
    }
    bytes
}

fn seeds() -> Range<u64> {
    match std::env::var("CUTOVER_SEED") {
        Ok(seed) => seed.parse().map(|seed| seed..seed + 1).expect("a number"),
        Err(_) => 0..SEEDS,
    }
}

#[test]
fn of_requests_never_reach_the_application_in_two_meanings() {
    let requests: Vec<_> = cases("requests", &["rfc", "send", "want", "up"])
        .iter()
        .map(|case| case.bytes("send"))
        .filter(|sent| (1..4096).contains(&sent.len()))
        .collect();
    let seeds = seeds();
    std::thread::scope(|scope| {
        for share in 0..4 {
            let (seeds, requests) = (seeds.clone(), &requests);
            scope.spawn(move || {
                let lane = Lane::new();
                seeds.filter(|seed| seed % 4 == share).for_each(|seed| tried(&lane, seed, requests));
            });
        }
    });
}

fn tried(lane: &Lane, seed: u64, requests: &[Vec<u8>]) {
    let sent = mutated(&mut Dice(seed), requests);
    let mut client = lane.cutover.client();
    let _ = client.try_send(&sent);
    client.close_sending();
    client.rest_or_reset();
    for seen in lane.seen() {
        if let Err(why) = strict::requests(&seen) {
            panic!("CUTOVER_SEED={seed}: {:?} became {why}", String::from_utf8_lossy(&sent));
        }
    }
}

/// How many proxies run answers beside each other: most of the time goes by in silence.
const LANES: u64 = 8;

#[test]
fn of_answers_never_reach_a_client_in_two_meanings_nor_another_one() {
    let cases = cases("upstreams", &upstreams::KEYS);
    let originals = ["do", "h2"].map(|key| {
        let sent = cases.iter().map(|case| match key {
            "do" => case.all(key).filter_map(|step| step.strip_prefix("send ")).flat_map(notation::bytes).collect(),
            _ => case.all(key).filter_map(|step| written(step, 1)).flatten().collect(),
        });
        sent.filter(|sent: &Vec<u8>| (1..4096).contains(&sent.len())).collect::<Vec<_>>()
    });
    let seeds = seeds();
    std::thread::scope(|scope| {
        for share in 0..LANES {
            let (seeds, originals) = (seeds.clone(), &originals);
            scope.spawn(move || {
                let lane = upstreams::Lane::new("'200ms'");
                seeds.filter(|seed| seed % LANES == share).for_each(|seed| answered(&lane, seed, originals));
                lane.cutover.until_app("no lease is left", |app| app["colors"]["blue"]["in_flight"] == 0);
            });
        }
    });
}

fn answered(lane: &upstreams::Lane, seed: u64, originals: &[Vec<Vec<u8>>; 2]) {
    let mut dice = Dice(seed);
    let is_http2 = dice.below(2) == 1;
    let sent = mutated(&mut dice, &originals[usize::from(is_http2)]);
    let written: String = sent.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let mut steps = vec![format!("send {written}")];
    if dice.below(3) == 0 {
        steps.push("close".to_owned());
    }
    let play = Play { asked: vec![Play::get(is_http2)], steps, is_http2 };
    let Played { seen, script, next } = play.on(lane, |answers, end| {
        Ok(end.is_some() || answers.last().is_some_and(|answer| answer.is_whole && answer.status >= 200))
    });
    let what = match (seen, script, next) {
        // A busy machine takes longer than the proxy waits, before the application has accepted the connection.
        (Ok(answers), Err(why), _) if why == NOT_ASKED && answers.last().is_some_and(|last| last.status == 504) => {
            return;
        }
        (Err(why), _, _) | (_, Err(why), _) => why,
        (Ok(_), Ok(()), Ok((200, body))) if body.starts_with("after") => return,
        // A frame that is longer than what was sent of it swallows the frames of the next answer.
        (Ok(_), Ok(()), Ok((502, _)) | Err(_)) if is_http2 => return,
        // A busy machine takes longer than this test waits.
        (Ok(_), Ok(()), Ok((504, _))) => return,
        (Ok(_), Ok(()), next) => format!("the next request was answered {next:?}"),
    };
    panic!("CUTOVER_SEED={seed}: {:?}: {what}", String::from_utf8_lossy(&sent));
}
