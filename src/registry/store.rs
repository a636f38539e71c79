//! What the registry keeps, and its questions.
