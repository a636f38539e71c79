//! Encryption at rest: AES-256-GCM in chunks, so that a file of any size streams, and a cut or swapped one is noticed.
//!
//! A file is `magic, salt[32], chunk…`; every chunk is sealed under a key derived from the snapshot's key and the salt
//! (HKDF-SHA-256), with the chunk's number and a last-chunk mark in the nonce, and the file's name as associated data.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf, rand};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::Path;

const MAGIC: &[u8; 8] = b"WSHDSG01";
const SALT_BYTES: usize = 32;
const CHUNK_BYTES: usize = 64 * 1024;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// Whether others than its owner may read or change a file.
pub fn is_open_to_others(path: &Path) -> io::Result<bool> {
    Ok(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path)?.permissions()) & 0o077 != 0)
}

/// The snapshot's secret key. Debug shows nothing of it.
#[derive(Clone)]
pub struct Key([u8; KEY_BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A new random key.
    pub fn generate() -> io::Result<Key> {
        let mut key = [0; KEY_BYTES];
        rand::fill(&mut key).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(Key(key))
    }

    /// Reads 32 bytes in base64, or as 64 hexadecimal digits.
    pub fn from_text(text: &str) -> io::Result<Key> {
        use base64::Engine as _;
        let decoded = base64::engine::general_purpose::STANDARD.decode(text.trim());
        match decoded.ok().and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok()) {
            Some(key) => Ok(Key(key)),
            None => Key::from_hex(text),
        }
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> io::Result<Key> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "snapshot key is neither 32 bytes in base64 nor 64 hexadecimal digits");
        let text = text.trim();
        if text.len() != KEY_BYTES * 2 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut key = [0; KEY_BYTES];
        for (at, byte) in key.iter_mut().enumerate() {
            let digits = text.get(at * 2..at * 2 + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Key(key))
    }

    /// Reads the key file; refuses one that others than its owner can read.
    pub fn load(path: &Path) -> io::Result<Key> {
        let text = std::fs::read_to_string(path)?;
        if is_open_to_others(path)? {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "snapshot key is readable by others than its owner; run chmod 600 on it"));
        }
        Key::from_text(&text)
    }

    /// Reads the key file, or makes one (mode 0600) when there is none.
    pub fn load_or_generate(path: &Path) -> io::Result<Key> {
        match Key::load(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let key = Key::generate()?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.write_all(format!("{}\n", crate::store::hex(&key.0)).as_bytes())?;
        file.sync_all()?;
        Ok(key)
    }

    /// A name for the key that tells nothing about it; a snapshot refuses any other key.
    pub fn id(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"watershed snapshot key id");
        context.update(&self.0);
        crate::store::hex(context.finish().as_ref().get(..8).unwrap_or_default())
    }

    fn derive(&self, salt: &[u8]) -> io::Result<LessSafeKey> {
        let broken = |_| io::Error::other("key derivation failed");
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.0);
        let material = secret.expand(&[b"watershed segment"], &AES_256_GCM).map_err(broken)?;
        Ok(LessSafeKey::new(UnboundKey::from(material)))
    }
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0u8; 12];
    let (counter, mark) = bytes.split_at_mut(8);
    counter.copy_from_slice(&number.to_be_bytes());
    if let Some(mark) = mark.last_mut() {
        *mark = u8::from(last);
    }
    Nonce::assume_unique_for_key(bytes)
}

/// Encrypts what is written to it. [`SealWriter::finish`] must be called, or the file reads as cut short.
pub struct SealWriter<W: Write> {
    inner: W,
    key: LessSafeKey,
    name: String,
    number: u64,
    buffer: Vec<u8>,
    digest: digest::Context,
    bytes: u64,
}

impl<W: Write> SealWriter<W> {
    /// Starts a file that goes by `name`; reading it takes the same name.
    pub fn new(inner: W, key: &Key, name: &str) -> io::Result<SealWriter<W>> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let mut writer = SealWriter {
            inner,
            key: key.derive(&salt)?,
            name: name.to_owned(),
            number: 0,
            buffer: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES),
            digest: digest::Context::new(&digest::SHA256),
            bytes: 0,
        };
        writer.put(MAGIC)?;
        writer.put(&salt)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.inner.write_all(bytes)
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.buffer);
        self.key
            .seal_in_place_append_tag(nonce(self.number, last), Aad::from(self.name.as_bytes()), &mut chunk)
            .map_err(|_| io::Error::other("encryption failed"))?;
        self.put(&chunk)?;
        self.number += 1;
        chunk.clear();
        self.buffer = chunk;
        Ok(())
    }

    /// Seals the last chunk; gives the inner writer, the SHA-256 of the file as stored, and its length in bytes.
    pub fn finish(mut self) -> io::Result<(W, String, u64)> {
        self.seal(true)?;
        self.inner.flush()?;
        Ok((self.inner, crate::store::hex(self.digest.finish().as_ref()), self.bytes))
    }
}

impl<W: Write> Write for SealWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == CHUNK_BYTES {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decrypts a file made by [`SealWriter`]; a changed, cut, lengthened or renamed one is `InvalidData`.
pub struct SealReader<R: Read> {
    inner: R,
    key: LessSafeKey,
    name: String,
    number: u64,
    ahead: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
    ended: bool,
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "encrypted file is damaged, cut short, or sealed with another key")
}

impl<R: Read> SealReader<R> {
    /// Opens a file written under `name`.
    pub fn new(mut inner: R, key: &Key, name: &str) -> io::Result<SealReader<R>> {
        let mut start = [0u8; MAGIC.len() + SALT_BYTES];
        inner.read_exact(&mut start).map_err(|_| damaged())?;
        let (magic, salt) = start.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(damaged());
        }
        let key = key.derive(salt)?;
        let mut reader = SealReader { inner, key, name: name.to_owned(), number: 0, ahead: Vec::new(), plain: Vec::new(), at: 0, ended: false };
        reader.ahead = reader.next_chunk()?;
        Ok(reader)
    }

    fn next_chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
        (&mut self.inner).take((CHUNK_BYTES + TAG_BYTES) as u64).read_to_end(&mut chunk)?;
        Ok(chunk)
    }

    fn open_next(&mut self) -> io::Result<()> {
        let following = self.next_chunk()?;
        let last = following.is_empty();
        let mut chunk = std::mem::replace(&mut self.ahead, following);
        let plain = self
            .key
            .open_in_place(nonce(self.number, last), Aad::from(self.name.as_bytes()), &mut chunk)
            .map_err(|_| damaged())?
            .len();
        chunk.truncate(plain);
        self.plain = chunk;
        self.at = 0;
        self.number += 1;
        self.ended = last;
        Ok(())
    }
}

impl<R: Read> Read for SealReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            if self.ended {
                return Ok(0);
            }
            self.open_next()?;
        }
        let rest = self.plain.get(self.at..).unwrap_or_default();
        let taken = rest.len().min(out.len());
        for (to, from) in out.iter_mut().zip(rest) {
            *to = *from;
        }
        self.at += taken;
        Ok(taken)
    }
}

/// Encrypts a small value.
pub fn seal_bytes(key: &Key, name: &str, plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut writer = SealWriter::new(Vec::new(), key, name)?;
    writer.write_all(plain)?;
    Ok(writer.finish()?.0)
}

/// Decrypts a small value.
pub fn open_bytes(key: &Key, name: &str, sealed: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    SealReader::new(sealed, key, name)?.read_to_end(&mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_round_trips_and_every_damage_is_noticed() {
        let key = Key::generate().unwrap();
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let plain: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let sealed = seal_bytes(&key, "a", &plain).unwrap();
            assert_eq!(open_bytes(&key, "a", &sealed).unwrap(), plain);
            assert!(open_bytes(&key, "b", &sealed).is_err(), "another name");
            assert!(open_bytes(&Key::generate().unwrap(), "a", &sealed).is_err(), "another key");
            for cut in [0, 7, 39, 40, sealed.len() / 2, sealed.len() - 1] {
                assert!(open_bytes(&key, "a", &sealed[..cut]).is_err(), "cut at {cut} of {length}");
            }
            for at in (0..sealed.len()).step_by(sealed.len() / 40 + 1) {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1;
                assert!(open_bytes(&key, "a", &flipped).is_err(), "flip at {at} of {length}");
            }
            let mut longer = sealed.clone();
            longer.push(0);
            assert!(open_bytes(&key, "a", &longer).is_err());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_is_private_and_read_again() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot.key");
        let made = Key::load_or_generate(&path).unwrap();
        assert_eq!(Key::load_or_generate(&path).unwrap().id(), made.id());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Key::load(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
