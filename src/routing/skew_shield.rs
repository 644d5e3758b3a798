//! The skew shield: which static files the standby may answer where the color that serves does not have them.

use globset::GlobSet;

use crate::config;
use crate::domain::asset;
use crate::routing::rehearsal::set_of;

/// Decides which paths may be answered by the other color where one has no such file.
#[derive(Debug)]
pub struct SkewShield {
    globs: GlobSet,
}

impl SkewShield {
    /// Makes the shield as configured; `None` where it is off.
    pub fn new(config: &config::SkewShield) -> Option<Self> {
        config.enabled.then(|| SkewShield { globs: set_of(&config.paths) })
    }

    /// Whether the file at `path`, without a query, is the same in every release that has it.
    pub fn covers(&self, path: &str) -> bool {
        asset::is_hashed(path) || self.globs.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use crate::routing::skew_shield::*;

    #[test]
    fn a_file_is_covered_by_its_name_or_by_a_glob() {
        let config = config::SkewShield { enabled: true, paths: vec!["/_next/static/**".into()] };
        let shield = SkewShield::new(&config).expect("it is on");
        assert!(shield.covers("/app.3f9a1c2e.js") && shield.covers("/_next/static/x/_buildManifest.js"));
        assert!(!shield.covers("/app.js") && !shield.covers("/_next/data/x.json"));
        assert!(SkewShield::new(&config::SkewShield { enabled: false, ..config }).is_none());
    }
}
