//! Undoes content codings of answers, a piece at a time and within a bound.

use std::io::Write;

use bytes::Bytes;

use crate::exchange::ExchangeError;

/// A decoder is asked for `identity`, but an upstream may answer otherwise; usage cannot be read
/// and lists cannot be filtered in compressed bytes.
pub(crate) enum Decoder {
    Identity,
    Gzip(Box<flate2::write::MultiGzDecoder<Vec<u8>>>),
    Deflate(Box<flate2::write::ZlibDecoder<Vec<u8>>>),
    Brotli(Box<brotli::DecompressorWriter<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Vec<u8>>>),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Identity => "Identity",
            Self::Gzip(_) => "Gzip",
            Self::Deflate(_) => "Deflate",
            Self::Brotli(_) => "Brotli",
            Self::Zstd(_) => "Zstd",
        })
    }
}

/// Compressed input is fed in pieces of this size, so that what one piece inflates to can be
/// checked against the bound before the next is read.
const PIECE_BYTES: usize = 4 * 1024;

impl Decoder {
    /// The decoder for a `content-encoding` (RFC 9110 §8.4.1; zstd: RFC 8878).
    ///
    /// # Errors
    /// [`ExchangeError::Malformed`] for codings we do not know, and for more than one.
    pub(crate) fn of(coding: Option<&str>) -> Result<Self, ExchangeError> {
        let coding = coding.unwrap_or("identity").trim().to_ascii_lowercase();
        Ok(match coding.as_str() {
            "" | "identity" => Self::Identity,
            "gzip" | "x-gzip" => {
                Self::Gzip(Box::new(flate2::write::MultiGzDecoder::new(Vec::new())))
            }
            "deflate" => Self::Deflate(Box::new(flate2::write::ZlibDecoder::new(Vec::new()))),
            "br" => Self::Brotli(Box::new(brotli::DecompressorWriter::new(Vec::new(), 4096))),
            "zstd" => {
                let decoder = zstd::stream::write::Decoder::new(Vec::new())
                    .map_err(|_| ExchangeError::Malformed)?;
                Self::Zstd(Box::new(decoder))
            }
            _ => return Err(ExchangeError::Malformed),
        })
    }

    /// Decodes a piece; what comes out is at most `limit_bytes`.
    ///
    /// # Errors
    /// [`ExchangeError::Malformed`] for corrupt input, [`ExchangeError::TooLarge`] beyond the
    /// bound.
    pub(crate) fn push(
        &mut self,
        chunk: Bytes,
        limit_bytes: usize,
    ) -> Result<Bytes, ExchangeError> {
        if matches!(self, Self::Identity) {
            return if chunk.len() > limit_bytes {
                Err(ExchangeError::TooLarge)
            } else {
                Ok(chunk)
            };
        }
        let mut decoded = Vec::new();
        for piece in chunk.chunks(PIECE_BYTES) {
            self.write(piece).map_err(|_| ExchangeError::Malformed)?;
            decoded.append(self.output());
            if decoded.len() > limit_bytes {
                return Err(ExchangeError::TooLarge);
            }
        }
        Ok(Bytes::from(decoded))
    }

    /// What is left at the end of the input.
    ///
    /// # Errors
    /// [`ExchangeError::Reset`] when the coding's own end is missing.
    pub(crate) fn finish(&mut self) -> Result<Bytes, ExchangeError> {
        let cut = ExchangeError::Reset { answered: true };
        match self {
            Self::Identity => return Ok(Bytes::new()),
            Self::Gzip(decoder) => decoder.try_finish().map_err(|_| cut)?,
            Self::Deflate(decoder) => decoder.try_finish().map_err(|_| cut)?,
            Self::Brotli(decoder) => decoder.close().map_err(|_| cut)?,
            Self::Zstd(decoder) => decoder.flush().map_err(|_| cut)?,
        }
        Ok(Bytes::from(std::mem::take(self.output())))
    }

    fn write(&mut self, piece: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Identity => Ok(()),
            Self::Gzip(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Brotli(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Zstd(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
        }
    }

    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Identity => unreachable!("identity has no buffer; handled by the callers"),
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"data: {\"choices\":[]}\n\n";

    fn encode(coding: &str) -> Vec<u8> {
        let text = TEXT.repeat(50);
        match coding {
            "gzip" => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&text).unwrap();
                encoder.finish().unwrap()
            }
            "deflate" => {
                let mut encoder =
                    flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&text).unwrap();
                encoder.finish().unwrap()
            }
            "br" => {
                let mut out = Vec::new();
                let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 3, 20);
                encoder.write_all(&text).unwrap();
                drop(encoder);
                out
            }
            "zstd" => zstd::encode_all(&text[..], 1).unwrap(),
            _ => text,
        }
    }

    #[test]
    fn every_coding_comes_back_whatever_the_pieces() {
        for coding in ["identity", "gzip", "deflate", "br", "zstd"] {
            for size in [1, 7, 4096] {
                let mut decoder = Decoder::of(Some(coding)).unwrap();
                let mut all = Vec::new();
                for piece in encode(coding).chunks(size) {
                    all.extend(
                        decoder
                            .push(Bytes::copy_from_slice(piece), 1 << 20)
                            .unwrap(),
                    );
                }
                all.extend(decoder.finish().unwrap());
                assert_eq!(all, TEXT.repeat(50), "{coding} in pieces of {size}");
            }
        }
    }

    #[test]
    fn bombs_corruption_and_unknown_codings_are_errors() {
        let bomb = {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(&vec![0; 16 << 20]).unwrap();
            Bytes::from(encoder.finish().unwrap())
        };
        let pushed = Decoder::of(Some("gzip")).unwrap().push(bomb, 1 << 20);
        assert_eq!(pushed.unwrap_err(), ExchangeError::TooLarge);
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let mut decoder = Decoder::of(Some(coding)).unwrap();
            let garbage = decoder.push(Bytes::from_static(&[0xfb; 64]), 1 << 20);
            assert!(garbage.is_err() || decoder.finish().is_err(), "{coding}");
        }
        for coding in ["gzip", "br"] {
            let mut decoder = Decoder::of(Some(coding)).unwrap();
            let whole = encode(coding);
            let half = Bytes::copy_from_slice(&whole[..whole.len() / 2]);
            assert!(
                decoder.push(half, 1 << 20).is_err() || decoder.finish().is_err(),
                "{coding} cut"
            );
        }
        assert!(Decoder::of(Some("gzip, br")).is_err());
        assert!(Decoder::of(Some("compress")).is_err());
    }
}
