//! Where objects come from: files that are watched for change.
