//! What carries bytes to an upstream: a TCP connection, or one stream of an HTTP/2 connection.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::http2::Http2Stream;

/// The transport of one exchange with an upstream.
pub enum UpstreamIo {
    /// HTTP/1, on a connection of its own.
    Tcp(TcpStream),
    /// HTTP/2, on one of many streams.
    Stream(Http2Stream),
}

impl AsyncRead for UpstreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            UpstreamIo::Tcp(stream) => Pin::new(stream).poll_read(cx, room),
            UpstreamIo::Stream(stream) => Pin::new(stream).poll_read(cx, room),
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            UpstreamIo::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            UpstreamIo::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            UpstreamIo::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            UpstreamIo::Stream(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            UpstreamIo::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            UpstreamIo::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            UpstreamIo::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            UpstreamIo::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// How many bytes the peer's kernel has acknowledged, the SYN among them. It can still be read after a reset.
pub(super) fn acknowledged(stream: &TcpStream) -> Option<u64> {
    let size = size_of::<libc::tcp_info>();
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `info`, which is plain numbers and already zeroed.
    let (failed, info) = unsafe {
        let fd = stream.as_raw_fd();
        let failed = libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len);
        (failed, info.assume_init())
    };
    // A kernel before Linux 4.1 leaves the field 0, which is never equal to what was sent.
    (failed == 0).then_some(info.tcpi_bytes_acked)
}
