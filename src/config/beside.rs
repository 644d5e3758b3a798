//! `[service.NAME.preview]` and `[service.NAME.skew_shield]`: what the idle color answers beside the active one.

use super::section::Section;
use super::values::globs;

/// `[service.NAME.preview]`: whoever has a pass is answered by the idle color.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Whether there are passes. Default false.
    pub enabled: bool,
}

/// `[service.NAME.skew_shield]`: a static file that the active color does not have is asked of the other one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkewShield {
    /// Default true.
    pub enabled: bool,
    /// Globs of files whose content never changes, beside those that have a hash in their names. Empty by default.
    pub paths: Vec<String>,
}

impl Default for SkewShield {
    fn default() -> Self {
        SkewShield { enabled: true, paths: Vec::new() }
    }
}

pub(super) fn preview(section: &Section<'_, '_>) -> Preview {
    let preview = Preview { enabled: section.boolean("enabled", Preview::default().enabled) };
    section.refuse_unknown();
    preview
}

pub(super) fn skew_shield(section: &Section<'_, '_>) -> SkewShield {
    let shield = SkewShield {
        enabled: section.boolean("enabled", SkewShield::default().enabled),
        paths: globs(section, "paths", "[\"/assets/**\", \"/_next/static/**\"]"),
    };
    section.refuse_unknown();
    shield
}
