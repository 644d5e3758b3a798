//! How much traffic a doubted color keeps.
//!
//! Enough that the comparison soon has its answers, and as little as that allows: the others of its users are spared.

/// Requests per second that settle a doubt soon enough.
const ENOUGH: f64 = 20.0;
/// Of a busy service.
const LEAST: f64 = 0.1;
/// Of a quiet one: with more, the old color would answer too little to compare with.
const MOST: f64 = 0.5;

/// The share of the requests, 0.1 to 0.5, that the new color keeps while in doubt, where `rate` is the service's in
/// requests per second.
pub fn kept_share(rate: f64) -> f64 {
    // A silent service has a rate of 0, and the share of the quietest.
    (ENOUGH / rate).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_defined_without_traffic() {
        assert_eq!(super::kept_share(0.0), 0.5);
    }
}
