//! How long colors take to answer, in buckets of a quarter of an octave: fine enough to tell twice as slow from not.

use std::time::Duration;

/// Enough for a minute and more; the last one takes what is slower.
pub const ANSWER_BUCKETS: usize = 4 * 27;

/// The bucket of an answer whose head came after `age`.
pub fn answer_bucket(age: Duration) -> usize {
    let us = u64::try_from(age.as_micros()).unwrap_or(u64::MAX).max(4);
    let octave = us.ilog2();
    let quarter = (us >> (octave - 2)) & 3;
    (octave as usize * 4 + quarter as usize).min(ANSWER_BUCKETS - 1)
}

/// The upper end of a bucket: no answer in it took longer, but for the last one.
pub fn bucket_end(bucket: usize) -> Duration {
    let (octave, quarter) = (bucket / 4, bucket % 4);
    let quarters = (4 + quarter as u64 + 1) << octave;
    Duration::from_micros(quarters / 4)
}

#[cfg(test)]
mod tests {
    use crate::routing::latency::*;

    #[test]
    fn an_age_is_within_its_bucket_and_near_its_end() {
        for us in [4u64, 5, 7, 8, 9, 100, 999, 1_000, 12_345, 1_000_000, 59_999_999] {
            let age = Duration::from_micros(us);
            let end = bucket_end(answer_bucket(age));
            assert!(end > age && end.as_secs_f64() <= 1.26 * age.as_secs_f64(), "{us} us is in the bucket to {end:?}");
        }
        assert_eq!(answer_bucket(Duration::ZERO), answer_bucket(Duration::from_micros(4)));
        assert_eq!(answer_bucket(Duration::MAX), ANSWER_BUCKETS - 1);
    }
}
