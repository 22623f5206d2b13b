//! Harness of the fuzz target `batch`: what must hold of the payload of a log record, whatever its bytes.
//!
//! Only in tests and under `--cfg fuzzing`. It takes one input and panics where a property fails (L2).

use crate::batch_format::{self, BatchReference, ENTRY_HEADER_BYTES_MIN};

/// First byte, modulo 3: the rest is a batch, a batch reference, the id of a keyspace. What decodes, encoded again, is
/// the same bytes, so that there is one way to say each thing.
pub fn batch(input: &[u8]) {
    let Some((&what, payload)) = input.split_first() else { return };
    match what % 3 {
        0 => {
            let Ok(entries) = batch_format::decode(payload) else { return };
            let promised = entries.remaining();
            let mut again = Vec::new();
            batch_format::encode_number(&mut again, promised);
            let mut count = 0;
            for entry in entries {
                let Ok(entry) = entry else { return };
                batch_format::encode_entry(&mut again, entry.keyspace, entry.kind, entry.key, entry.value);
                count += 1;
            }
            assert_eq!(count, promised, "L2: a batch holds the entries that its count promises");
            assert!(payload.len() > ENTRY_HEADER_BYTES_MIN * count as usize);
            assert_eq!(again, payload, "L2: a batch keeps its bytes");
        }
        1 => {
            if let Ok(reference) = BatchReference::decode(payload) {
                assert_eq!(reference.encode(), payload, "P11: a batch reference keeps its bytes");
            }
        }
        _ => {
            if let Ok(id) = batch_format::decode_keyspace(payload) {
                assert_eq!(batch_format::encode_keyspace(id), payload, "P12: a keyspace's id keeps its bytes");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use internal_key::{KeyspaceId, Kind, TableId};
    use test_support::fuzz_twin;

    use super::*;
    use crate::batch_format::BatchPart;

    /// L2: payloads of any bytes never panic, and say nothing in two ways.
    #[test]
    fn batch_holds_for_any_bytes() {
        let mut entries = vec![0, 5];
        batch_format::encode_entry(&mut entries, KeyspaceId(1), Kind::Put, b"key", b"value");
        batch_format::encode_entry(&mut entries, KeyspaceId(2), Kind::Delete, b"another key", b"");
        batch_format::encode_entry(&mut entries, KeyspaceId(1), Kind::Put, b"", &[7; 90]);
        // Numbers of more than one byte.
        batch_format::encode_entry(&mut entries, KeyspaceId(31), Kind::Put, &[1; 130], &[7; 200]);
        batch_format::encode_entry(&mut entries, KeyspaceId(1 << 20), Kind::Delete, b"k", b"");
        let part = |id| BatchPart { keyspace: KeyspaceId(id), table: TableId(9), bytes: 4096, checksum: 0xABCD };
        let reference = BatchReference { entries: 1 << 20, parts: vec![part(1), part(7)] };
        let samples = [
            ("entries", entries),
            ("empty", vec![0; 2]),
            ("reference", [vec![1], reference.encode()].concat()),
            ("keyspace", vec![2, 5, 0, 0, 0]),
        ];
        fuzz_twin("batch", &samples, 2000, batch);
    }
}
