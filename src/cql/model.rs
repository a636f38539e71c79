//! The data model as the checker sees it: classes, elements, conversions, primary code paths.
