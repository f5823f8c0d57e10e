//! Header blocks: ours are literals without indexing, the peer's are decoded by a library.

use std::borrow::Cow;

use loona_hpack::Decoder;

/// The dynamic table that a peer may use: the protocol's default, which we never change.
const TABLE_BYTES: usize = 4096;
/// The longest value that is kept; longer ones are cut. Only a status message can be long.
const VALUE_MAX: usize = 2048;

/// The fields of a header block that gRPC looks at. The others are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    pub method: Option<String>,
    pub path: Option<String>,
    pub status: Option<String>,
    pub content_type: Option<String>,
    pub encoding: Option<String>,
    pub grpc_status: Option<String>,
    pub grpc_message: Option<String>,
}

impl Headers {
    fn take(&mut self, name: &[u8], value: Cow<'_, [u8]>) {
        let field = match name {
            b":method" => &mut self.method,
            b":path" => &mut self.path,
            b":status" => &mut self.status,
            b"content-type" => &mut self.content_type,
            b"grpc-encoding" => &mut self.encoding,
            b"grpc-status" => &mut self.grpc_status,
            b"grpc-message" => &mut self.grpc_message,
            _ => return,
        };
        let value = &value[..value.len().min(VALUE_MAX)];
        *field = Some(String::from_utf8_lossy(value).into_owned());
    }
}

/// Decodes the peer's header blocks, all of them and in order, because they share a table.
pub struct HeaderDecoder {
    decoder: Decoder<'static>,
}

impl Default for HeaderDecoder {
    fn default() -> HeaderDecoder {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(TABLE_BYTES);
        HeaderDecoder { decoder }
    }
}

impl HeaderDecoder {
    /// Decodes a whole block; `None` if it is malformed, which no later block can mend.
    pub fn decode(&mut self, block: &[u8]) -> Option<Headers> {
        let mut headers = Headers::default();
        self.decoder
            .decode_with_cb(block, |name, value| headers.take(&name, value))
            .ok()?;
        Some(headers)
    }
}

/// Encodes header fields as literals without indexing (RFC 7541 section 6.2.2).
pub fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name);
        string(&mut block, value);
    }
    block
}

/// A string without Huffman coding: a length in a seven-bit prefix, then the bytes.
fn string(block: &mut Vec<u8>, text: &str) {
    const PREFIX_MAX: usize = 127;
    let len = text.len();
    if len < PREFIX_MAX {
        block.push(len as u8);
    } else {
        block.push(PREFIX_MAX as u8);
        let mut rest = len - PREFIX_MAX;
        while rest >= 128 {
            block.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_ours_is_read_back() {
        let long = "x".repeat(400);
        let block = encode(&[(":path", "/a/B"), ("other", &long), ("grpc-message", &long)]);
        let headers = HeaderDecoder::default().decode(&block).unwrap();
        assert_eq!(headers.path.as_deref(), Some("/a/B"));
        assert_eq!(headers.grpc_message.as_deref(), Some(long.as_str()));
        assert_eq!(headers.method, None);
    }

    #[test]
    fn huffman_and_both_tables_are_understood() {
        let mut decoder = HeaderDecoder::default();
        // RFC 7541 C.4.1, C.4.2 and a new field that C.4.3 then refers to, with another path.
        let first = [
            0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0,
        ];
        let tail = [0xab, 0x90, 0xf4, 0xff];
        let headers = decoder.decode(&[&first[..], &tail].concat()).unwrap();
        assert_eq!(headers.method.as_deref(), Some("GET"));
        assert_eq!(headers.path.as_deref(), Some("/"));
        // content-type with incremental indexing, then by its number in the dynamic table.
        let mut block = vec![0x40 | 31, 16];
        block.extend_from_slice(b"application/grpc");
        assert!(decoder.decode(&block).is_some());
        let again = decoder.decode(&[0x80 | 62]).unwrap();
        assert_eq!(again.content_type.as_deref(), Some("application/grpc"));
    }

    #[test]
    fn malformed_blocks_are_refused() {
        let oversized_table = [0x3f, 0xff, 0xff, 0x7f, 0x82];
        let blocks: [&[u8]; 6] = [
            &[0xff],
            &[0x80],
            &[0x3f, 0xff],
            &[0, 5, b'a'],
            &[0xc0],
            &oversized_table,
        ];
        for block in blocks {
            assert_eq!(HeaderDecoder::default().decode(block), None, "{block:x?}");
        }
    }
}
