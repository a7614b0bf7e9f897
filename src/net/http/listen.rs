//! Where requests come from: a TCP port or a Unix socket, as one type.

use super::super::{PortSetting, listen};
use crate::error::Error;
use async_net::TcpStream;
use async_net::unix::{UnixListener, UnixStream};
use smol::io::{AsyncRead, AsyncWrite};
use std::boxed::Box;
use std::format;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A socket that accepts connections. A Unix socket's file is removed on drop, unless another
/// has taken its place.
#[derive(Debug)]
pub(crate) enum Listener {
    /// A TCP port.
    Tcp(super::super::Listener),
    /// A Unix socket, its path, and which file that is.
    Unix(UnixListener, PathBuf, (u64, u64)),
}

impl Listener {
    /// Opens a TCP port; `setting` is what to change when that fails.
    ///
    /// # Errors
    /// [`Error::Network`] where the address is taken, and by whom, or not ours.
    pub(crate) async fn tcp(address: SocketAddr, setting: PortSetting) -> Result<Listener, Error> {
        listen(address.ip(), address.port(), setting).await.map(Listener::Tcp)
    }

    /// Opens a Unix socket that only its owner and group may use. The socket of a node that is gone is replaced; one
    /// that answers, or a file of another kind, is not.
    ///
    /// # Errors
    /// [`Error::Network`] where it is in use or cannot be made.
    pub(crate) async fn unix(path: &Path, setting: &str) -> Result<Listener, Error> {
        let failed = |why: &str, cause: Option<io::Error>| {
            let message = format!("cannot listen on {} ({setting}): {why}", path.display());
            Error::network(message, cause.map(|cause| Box::from(cause) as _))
        };
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(failed("a file that is not a socket is there; name another path", None));
            }
            // Refused means that nobody listens any more. Everything else, a queue that is full say, is somebody.
            match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(failed("the socket of another user is there; name another path", Some(error)));
                }
                _ => return Err(failed("another program answers there; stop it or name another path", None)),
            }
            std::fs::remove_file(path).map_err(|cause| failed("the old socket cannot be removed", Some(cause)))?;
        }
        let listener = UnixListener::bind(path)
            .map_err(|cause| failed("the socket cannot be made; does its folder exist?", Some(cause)))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
            .map_err(|cause| failed("its mode cannot be set", Some(cause)))?;
        listen::lengthen_queue(&listener).map_err(|cause| failed("its queue cannot be made", Some(cause)))?;
        let made = std::fs::symlink_metadata(path).map_err(|cause| failed("the socket is gone", Some(cause)))?;
        Ok(Listener::Unix(listener, path.to_path_buf(), (made.dev(), made.ino())))
    }

    /// The address in use, where it is TCP: says which port was chosen for port 0.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => Some(listener.address()),
            Listener::Unix(..) => None,
        }
    }

    pub(super) async fn accept(&mut self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are small and complete: waiting for more to send only delays them.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Listener::Unix(listener, ..) => {
                // A flood of connections must not keep other tasks of this thread from running.
                smol::future::yield_now().await;
                Ok(Stream::Unix(listener.accept().await?.0))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path, made) = self
            && std::fs::symlink_metadata(&*path).is_ok_and(|found| (found.dev(), found.ino()) == *made)
        {
            // A file left behind is replaced at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_close(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}
