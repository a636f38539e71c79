//! Discovery and tokens with reuse and refresh.
