//! Holds: receipts: the record and its signed bytes, the transparency log's tree and its forms, and the checking of all of it. No
//! store, no clock, no key file.
//!
//! The log is the one of C2SP (tlog-tiles, tlog-checkpoint, signed-note, tlog-proof), its tree that of RFC 6962 with SHA-256, so
//! that programs of others can check it; one Ed25519 key signs records, checkpoints and COSE receipts (RFC 9942), each over bytes
//! that begin otherwise.

mod checkpoint;
mod cose;
mod edge;
mod hash;
mod key;
mod note;
mod proof;
mod record;
mod rotation;
mod tile;
mod tree;
mod verify;
mod words;

pub use checkpoint::{BadCheckpoint, Checkpoint, Origin};
pub use cose::cose_receipt;
pub use edge::{Edge, FullTile};
pub use hash::{BadHash, Hash, leaf_hash, node_hash};
pub use key::{BadKey, KeyId, SigningKey, VerifyingKey};
pub use note::{BadNote, Note, NoteKey, NoteSignature};
pub use proof::{BadProof, LogProof};
pub use record::{BadRecord, MAX_TEXT_BYTES, Record, Source, entry_of, record_bytes};
pub use rotation::{BadRotation, Rotation, rotation_entry};
pub use tile::{BadTile, TILE_WIDTH, Tile, TileKind, Tiles};
pub use tree::{Unproven, verify_consistency, verify_inclusion};
pub use verify::{Checked, ShownLog, ShownRecord, Unsound, verify_record};
