//! Text to tokens with spans.
