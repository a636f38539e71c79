//! The one HTTP client: which origin may see a token, redirects, limits, retries.
