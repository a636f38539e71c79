//! Small cells, pseudonyms, what may leave the hospital.
