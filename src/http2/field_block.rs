//! A field block and its frame.

/// A field block, with what its HEADERS frame says beside it. The bytes are a `Vec` while more of them are to come, and
/// a slice once they are whole.
pub struct FieldBlock<B> {
    pub stream: u32,
    pub ends: bool,
    /// The priority names the stream itself, which RFC 7540 forbade.
    pub depends_on_itself: bool,
    pub bytes: B,
}
