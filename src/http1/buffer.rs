//! Byte buffers. A worker lends them while there are bytes to hold, and takes them back as soon as there are none, so
//! that an idle connection holds none.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The size of a buffer for a head that we write. The head of every request in flight waits in one until its response
/// begins, so the buffer comes from the heap and is no larger than most heads need.
pub const TINY: usize = 2 * 1024;

/// The size of a buffer for a head that we read, and for a small body with it. With the 16 bytes of the allocator it
/// takes four pages.
pub const SMALL: usize = 16 * 1024 - 64;

/// The size of a buffer for a body that keeps coming: it takes fewer system calls per megabyte.
pub const LARGE: usize = 128 * 1024;

/// Has the allocator map each buffer on its own. A page that no byte was read into then takes no memory, and a buffer
/// that a burst needed goes back to the system after it. Call this once, before the first buffer is made.
pub fn map_buffers() {
    // SAFETY: mallopt only changes settings of the allocator. Where it refuses, buffers come from the heap.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, SMALL as libc::c_int);
    }
}

/// The most large buffers that one worker lends at once, which are 32 MiB. Beyond that it lends small ones: clients
/// that ask for much and read nothing would otherwise hold a large one for each of their connections.
const LENT_MAX: usize = 256;

/// How many free buffers of each size, from the smallest to the largest, a worker keeps.
const FREE_MAX: [usize; 3] = [2048, 256, 32];

/// Bytes that were received, or are to be sent, and are not used yet.
#[derive(Default)]
pub struct Buffer {
    data: Vec<u8>,
    start: usize,
    end: usize,
    /// Counts a large buffer as lent.
    loan: Option<Loan>,
}

/// Counts one of [`LENT_MAX`] until it is dropped.
struct Loan(Rc<Cell<usize>>);

impl Loan {
    /// Counts one more; `None` where that would be too many.
    fn take(lent: &Rc<Cell<usize>>) -> Option<Loan> {
        (lent.get() < LENT_MAX).then(|| {
            lent.set(lent.get() + 1);
            Loan(Rc::clone(lent))
        })
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Buffer {
    fn new(size: usize) -> Self {
        Buffer { data: vec![0; size], start: 0, end: 0, loan: None }
    }

    /// The bytes that are not used yet.
    pub fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// The bytes that are not used yet, to be changed.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// Whether all bytes are used.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many bytes it holds when it is full.
    pub fn size(&self) -> usize {
        self.data.len()
    }

    /// Whether no byte more fits, even after the used ones are dropped.
    pub fn is_full(&self) -> bool {
        self.end - self.start == self.data.len()
    }

    /// Marks the first `n` unused bytes as used.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// The room behind the bytes, all of it initialised. [`Buffer::add`] then says how much of it was filled.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.end == self.data.len() && self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.data[self.end..]
    }

    /// Takes note that `n` bytes were written to [`Buffer::spare`].
    pub fn add(&mut self, n: usize) {
        self.end += n;
        debug_assert!(self.end <= self.data.len());
    }

    /// Appends `bytes` and grows where they do not fit. Use it only for what we write ourselves, whose size is bounded.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        if end > self.data.len() {
            self.data.resize(end.next_power_of_two(), 0);
        }
        self.data[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// Drops all bytes.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Grows to `size` bytes, unless it has them.
    pub fn grow(&mut self, size: usize) {
        if size > self.data.len() {
            self.data.resize(size, 0);
        }
    }
}

/// The free buffers of one worker.
#[derive(Default)]
pub struct Buffers {
    tiny: RefCell<Vec<Buffer>>,
    small: RefCell<Vec<Buffer>>,
    large: RefCell<Vec<Buffer>>,
    lent: Rc<Cell<usize>>,
}

impl Buffers {
    /// An empty buffer of [`TINY`] size, which [`Buffer::put`] may grow.
    pub fn tiny(&self) -> Buffer {
        self.tiny.borrow_mut().pop().unwrap_or_else(|| Buffer::new(TINY))
    }

    /// An empty buffer of [`SMALL`] size.
    pub fn small(&self) -> Buffer {
        self.small.borrow_mut().pop().unwrap_or_else(|| Buffer::new(SMALL))
    }

    /// An empty buffer of [`LARGE`] size, or of [`SMALL`] while too many large ones are in use.
    pub fn large(&self) -> Buffer {
        let Some(loan) = Loan::take(&self.lent) else { return self.small() };
        let buffer = self.large.borrow_mut().pop().unwrap_or_else(|| Buffer::new(LARGE));
        Buffer { loan: Some(loan), ..buffer }
    }

    /// Takes a buffer back and drops its bytes. A buffer that has grown to another size is freed.
    pub fn give_back(&self, mut buffer: Buffer) {
        buffer.loan = None;
        let (free, free_max) = match buffer.size() {
            TINY => (&self.tiny, FREE_MAX[0]),
            SMALL => (&self.small, FREE_MAX[1]),
            LARGE => (&self.large, FREE_MAX[2]),
            _ => return,
        };
        let mut free = free.borrow_mut();
        if free.len() < free_max {
            buffer.clear();
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::buffer::*;

    #[test]
    fn large_ones_are_lent_to_so_many_only() {
        let buffers = Buffers::default();
        let mut lent: Vec<_> = std::iter::repeat_with(|| buffers.large()).take(LENT_MAX).collect();
        assert!(lent.iter().all(|buffer| buffer.size() == LARGE));
        assert_eq!(buffers.large().size(), SMALL);
        buffers.give_back(lent.pop().expect("there are some"));
        let again = buffers.large();
        assert_eq!((again.size(), buffers.large().size()), (LARGE, SMALL));
        drop(lent); // as with a connection that was cut
        assert_eq!(buffers.large().size(), LARGE);
    }

    #[test]
    fn keeps_unused_bytes_when_it_makes_room() {
        let mut buffer = Buffer::new(4);
        buffer.spare()[..4].copy_from_slice(b"abcd");
        buffer.add(4);
        assert!(buffer.is_full());
        buffer.consume(3);
        assert_eq!(buffer.spare().len(), 3);
        assert_eq!(buffer.filled(), b"d");
    }
}
