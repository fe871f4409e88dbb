//! A capture into a file, from the card's beginning to its end (`toe-nic --capture`).

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use pcap_file::PcapError;

use crate::capture::pcapng::Encoder;
use crate::capture::{CaptureError, Watch};

/// Why nothing is written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureFailure {
    /// The file.
    #[error("{0}; is the directory there, and writable for you?")]
    File(#[from] io::Error),
    /// The format.
    #[error(transparent)]
    Format(#[from] PcapError),
    /// The filter.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// What writes.
pub struct Writer {
    encoder: Encoder,
    file: Box<dyn Write + Send>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// Opens the file, `-` being standard output, and writes the headers.
///
/// # Errors
/// See [`CaptureFailure`].
pub fn open(path: &Path, snaplen: usize) -> Result<Writer, CaptureFailure> {
    let mut file: Box<dyn Write + Send> =
        if path == Path::new("-") { Box::new(io::stdout()) } else { Box::new(File::create(path)?) };
    let mut encoder = Encoder::new(snaplen)?;
    file.write_all(&encoder.take())?;
    file.flush()?;
    Ok(Writer { encoder, file })
}

impl Writer {
    /// Writes what is seen, until nothing is any more or who reads has gone.
    ///
    /// # Errors
    /// The file's.
    pub fn run(mut self, mut watch: Watch) -> io::Result<()> {
        while let Some(seen) = watch.blocking_next() {
            self.encoder.add(&seen).map_err(io::Error::other)?;
            match self.file.write_all(&self.encoder.take()).and_then(|()| self.file.flush()) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                other => other?,
            }
        }
        Ok(())
    }
}
