//! Holds `[service.NAME.preview]` and `[service.NAME.skew_shield]`: the idle color serves some requests beside the
//! active one.

use super::section::Section;
use super::values::globs;

/// `[service.NAME.preview]`: the idle color serves the requests that carry a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Whether passes are issued. Default false.
    pub enabled: bool,
}

/// `[service.NAME.skew_shield]`: a static file that the active color does not have is requested from the other color.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkewShield {
    /// Whether the shield is on. Default true.
    pub enabled: bool,
    /// Globs of files whose content never changes, in addition to those with a hash in their names. Empty by default.
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
