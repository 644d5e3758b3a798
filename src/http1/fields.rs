//! Header fields: those of a parsed head, and field lines that are written.

use std::mem::MaybeUninit;

use crate::http1::buffer::Buffer;
use crate::http1::header::Field;

/// The most fields that a head may have.
pub const FIELDS_MAX: usize = 100;

/// Room for the fields of one head, on the stack of the function that parses it.
pub struct HeaderStorage<'h> {
    pub(in crate::http1) headers: [MaybeUninit<httparse::Header<'h>>; FIELDS_MAX],
    pub(in crate::http1) kinds: [Field; FIELDS_MAX],
}

impl HeaderStorage<'_> {
    /// Empty room, which costs nothing to make.
    pub fn new() -> Self {
        HeaderStorage { headers: [const { MaybeUninit::uninit() }; FIELDS_MAX], kinds: [Field::Other; FIELDS_MAX] }
    }
}

/// The fields of a parsed head, each with what the proxy does with it.
#[derive(Clone, Copy)]
pub struct Fields<'h> {
    headers: &'h [httparse::Header<'h>],
    kinds: &'h [Field],
}

impl<'h> Fields<'h> {
    /// Looks up each of `headers`.
    pub fn new(headers: &'h [httparse::Header<'h>], kinds: &'h mut [Field; FIELDS_MAX]) -> Self {
        for (kind, header) in kinds.iter_mut().zip(headers) {
            *kind = Field::of(header.name);
        }
        Fields { headers, kinds }
    }

    /// All fields, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'h httparse::Header<'h>, Field)> {
        self.headers.iter().zip(self.kinds.iter().copied())
    }

    /// The values of the fields of that kind, in order.
    pub fn values(self, of: Field) -> impl Iterator<Item = &'h [u8]> {
        self.iter().filter(move |(_, field)| *field == of).map(|(header, _)| header.value)
    }

    /// The values of the fields of that name, in order. For a field that has a kind of its own, [`Fields::values`] is
    /// faster.
    pub fn named(self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }
}

/// A field that the proxy adds.
#[derive(Clone, Copy, Debug)]
pub struct FieldLine<'v> {
    pub name: &'static str,
    pub value: &'v str,
}

/// Writes a field line.
pub fn put_field(out: &mut Buffer, name: &str, value: &[u8]) {
    out.put(name.as_bytes());
    out.put(b": ");
    out.put(value);
    out.put(b"\r\n");
}

/// Writes a `Content-Length`.
pub fn put_length(out: &mut Buffer, length: u64) {
    put_field(out, "Content-Length", itoa::Buffer::new().format(length).as_bytes());
}
