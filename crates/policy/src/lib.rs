//! Who may do what, and in what words we refuse.
