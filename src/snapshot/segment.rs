//! One file of resources: how records are framed, written aside, made durable, and read back.

use super::seal::{Key, SealReader, SealWriter};
use crate::fhir::ndjson::{LINE_BYTES_MAX, Line, Lines};
use jiff::Timestamp;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// zstd's default level: FHIR JSON shrinks about tenfold.
const COMPRESSION_LEVEL: i32 = 3;

/// What is known of a stored resource beside its JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// FHIR resource type.
    pub resource_type: String,
    /// Resource id.
    pub id: String,
    /// Bare id of its patient; empty when it belongs to none.
    pub patient: String,
    /// `meta.versionId`, when it is a number.
    pub version: Option<u64>,
    /// `meta.lastUpdated`, in microseconds since 1970.
    pub updated: Option<i64>,
    /// SHA-256 of the JSON without white space.
    pub hash: [u8; 32],
    /// A tombstone: the resource is gone.
    pub removed: bool,
    /// Name of the import of which it is a row; empty when it is the source's own.
    pub import: String,
}

impl Header {
    /// The key that is unique in a snapshot.
    pub fn key(&self) -> (&str, &str) {
        (&self.resource_type, &self.id)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let number = |value: Option<i128>| value.map(|value| value.to_string()).unwrap_or_default();
        let text = format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            self.resource_type,
            self.id,
            self.patient,
            number(self.version.map(i128::from)),
            number(self.updated.map(i128::from)),
            crate::store::hex(&self.hash),
            if self.removed { '-' } else { '+' },
            self.import
        );
        out.extend_from_slice(text.as_bytes());
    }

    fn read(line: &[u8]) -> Option<Header> {
        let mut fields = std::str::from_utf8(line).ok()?.split('\t');
        let resource_type = fields.next()?.to_owned();
        let id = fields.next()?.to_owned();
        let patient = fields.next()?.to_owned();
        let version = fields.next()?;
        let updated = fields.next()?;
        let hex = fields.next()?;
        let removed = fields.next()? == "-";
        // Segments of before there were imports end here.
        let import = fields.next().unwrap_or_default().to_owned();
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok()?;
        }
        Some(Header {
            resource_type,
            id,
            patient,
            version: if version.is_empty() { None } else { Some(version.parse().ok()?) },
            updated: if updated.is_empty() { None } else { Some(updated.parse().ok()?) },
            hash,
            removed,
            import,
        })
    }

    /// `meta.lastUpdated` as an instant.
    pub fn updated_at(&self) -> Option<Timestamp> {
        Timestamp::from_microsecond(self.updated?).ok()
    }
}

/// A compressed, encrypted file of lines, visible under its name only when whole and durable.
pub(super) struct LineWriter {
    encoder: zstd::Encoder<'static, SealWriter<BufWriter<File>>>,
    aside: PathBuf,
    path: PathBuf,
}

impl LineWriter {
    /// Starts `path`; `name` binds the content to its place.
    pub fn create(path: &Path, key: &Key, name: &str) -> io::Result<LineWriter> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".part");
        let aside = PathBuf::from(aside);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = BufWriter::new(options.open(&aside)?);
        let encoder = zstd::Encoder::new(SealWriter::new(file, key, name)?, COMPRESSION_LEVEL)?;
        Ok(LineWriter { encoder, aside, path: path.to_owned() })
    }

    /// Writes a line; `line` holds no newline.
    pub fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.encoder.write_all(line)?;
        self.encoder.write_all(b"\n")
    }

    /// Writes a header line.
    pub fn header(&mut self, header: &Header) -> io::Result<()> {
        let mut line = Vec::with_capacity(160);
        header.write(&mut line);
        self.encoder.write_all(&line)
    }

    /// Makes the file durable under its name (the folder is the caller's to sync). Gives SHA-256 and length.
    pub fn finish(self) -> io::Result<(String, u64)> {
        let (file, sha256, bytes) = self.encoder.finish()?.finish()?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&self.aside, &self.path)?;
        Ok((sha256, bytes))
    }
}

/// What a file holds once its seal is opened and it is decompressed.
type Plain = zstd::Decoder<'static, BufReader<SealReader<BufReader<File>>>>;

/// Reads what [`LineWriter`] wrote.
pub(super) struct LineReader {
    lines: Lines<BufReader<Plain>>,
}

impl LineReader {
    /// Opens `path` that was written under `name`.
    pub fn open(path: &Path, key: &Key, name: &str) -> io::Result<LineReader> {
        let sealed = SealReader::new(BufReader::new(File::open(path)?), key, name)?;
        let plain = BufReader::with_capacity(128 * 1024, zstd::Decoder::new(sealed)?);
        Ok(LineReader { lines: Lines::with_limit(plain, LINE_BYTES_MAX + 4096) })
    }

    /// The next line; `None` at the end.
    pub fn line(&mut self) -> io::Result<Option<&[u8]>> {
        match self.lines.next_line()? {
            None => Ok(None),
            Some(Line::Text { bytes, .. }) => Ok(Some(bytes)),
            Some(Line::TooLong { .. }) => Err(io::Error::new(io::ErrorKind::InvalidData, "stored line is too long")),
        }
    }

    /// The next header line; `None` at the end.
    pub fn header(&mut self) -> io::Result<Option<Header>> {
        match self.line()? {
            None => Ok(None),
            Some(line) => Header::read(line).map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "stored header is unreadable")),
        }
    }
}

/// Makes a folder's entries durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
