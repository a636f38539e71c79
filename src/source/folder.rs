//! Files on disk: NDJSON, Bundles, folders of either, compressed or not.
