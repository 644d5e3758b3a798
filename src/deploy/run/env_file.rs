//! Changes the image tag in the env file in force, and nothing else in it: operators edit the file as well.

use crate::deploy::files;
use crate::deploy::run::{DeployRun, FailureCause};

impl DeployRun<'_> {
    /// Puts the new tag in force. Edits that were made since the deploy began are kept, and reported.
    pub(super) fn put_env_in_force(&mut self) -> Result<String, FailureCause> {
        let color = self.color();
        let (path, kept) = (self.target.env_file(color).to_owned(), self.lock.kept_env());
        let file_error = |error| FailureCause::File { path: path.clone(), error };
        let present = self.target.read_env(&path)?;
        // A run that was killed in this step has kept the file already, and may have changed it since.
        if !kept.exists() {
            files::replace(&kept, present.text.as_bytes(), Some(&path)).map_err(file_error)?;
        }
        let wanted = present.with("IMAGE_TAG", &self.journal.tag);
        let candidate = std::fs::read_to_string(self.target.candidate(color)).map_err(file_error)?;
        files::replace(&path, wanted.as_bytes(), Some(&path)).map_err(file_error)?;
        if candidate != wanted {
            let shown = path.display();
            self.progress.note(&format!(
                "{shown} was edited since the deploy began. The edit stays; {color} runs without it until its next `up`"
            ));
        }
        Ok(format!("{} has IMAGE_TAG={}", path.display(), self.journal.tag))
    }

    /// Puts the tag from before the deploy in force again. Where nothing else was edited, the file is byte for byte as
    /// it was.
    pub(super) fn put_env_back(&mut self) -> Result<String, FailureCause> {
        let (path, kept) = (self.target.env_file(self.color()).to_owned(), self.lock.kept_env());
        if !kept.exists() {
            return Ok(format!("{} is as it was", path.display()));
        }
        let file_error = |error| FailureCause::File { path: path.clone(), error };
        let (present, before) = (self.target.read_env(&path)?, self.target.read_env(&kept)?);
        let tag = present.get("IMAGE_TAG").map(|(tag, _)| tag.to_owned());
        let restored = if present.text == before.with("IMAGE_TAG", &self.journal.tag) {
            before.text
        } else if tag.as_ref() == Some(&self.journal.tag) {
            present.with("IMAGE_TAG", before.get("IMAGE_TAG").map_or("", |(tag, _)| tag))
        } else {
            // It was never put in force, or somebody has chosen a tag since.
            return Ok(format!("{} has the tag that somebody gave it", path.display()));
        };
        files::replace(&path, restored.as_bytes(), Some(&path)).map_err(file_error)?;
        Ok(format!("{} has IMAGE_TAG={} again", path.display(), self.tag_before()))
    }
}
