use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{Limits, read};

fn names(root: &Path, paths: &[PathBuf]) -> Vec<String> {
    let files = read(paths, Limits::default()).unwrap();
    let prefix = format!("{}/", root.display());
    files
        .iter()
        .map(|file| file.path.replace(&prefix, ""))
        .collect()
}

fn messages(paths: &[PathBuf], limits: Limits) -> Vec<String> {
    let problems = read(paths, limits).unwrap_err();
    problems
        .into_iter()
        .map(|problem| format!("{}: {}", problem.code, problem.message))
        .collect()
}

#[test]
fn reads_a_tree_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("b/c")).unwrap();
    fs::create_dir(root.join(".git")).unwrap();
    for name in [
        "z.yaml",
        "a.yml",
        "b/2.json",
        "b/c/1.yaml",
        ".hidden.yaml",
        ".git/x.yaml",
        "README.md",
    ] {
        fs::write(root.join(name), name).unwrap();
    }
    let all = ["a.yml", "z.yaml", "b/2.json", "b/c/1.yaml"];
    assert_eq!(names(root, &[root.to_owned()]), all);
    let several = [
        root.join("README.md"),
        root.join("b/2.json"),
        root.to_owned(),
    ];
    assert_eq!(
        names(root, &several),
        ["README.md", "b/2.json", "a.yml", "z.yaml", "b/c/1.yaml"]
    );
}

#[test]
fn reads_a_mounted_config_map_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir(root.join("..2026_1")).unwrap();
    fs::write(root.join("..2026_1/a.yaml"), "a").unwrap();
    symlink("..2026_1", root.join("..data")).unwrap();
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    assert_eq!(names(root, &[root.to_owned()]), ["a.yaml"]);
}

#[test]
fn ends_in_circles() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::write(root.join("a.yaml"), "a").unwrap();
    symlink(".", root.join("self")).unwrap();
    assert_eq!(names(root, &[root.to_owned()]), ["a.yaml"]);
}

#[test]
fn says_what_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    assert!(messages(&[root.to_owned()], Limits::default())[0].starts_with("no-files: "));
    let absent = messages(&[root.join("x")], Limits::default());
    assert!(
        absent[0].starts_with("unreadable: No such file"),
        "{absent:?}"
    );
    fs::write(root.join("a.yaml"), "12345").unwrap();
    fs::write(root.join("b.yaml"), [0xff]).unwrap();
    symlink("nowhere", root.join("c.yaml")).unwrap();
    let limits = Limits {
        file_bytes: 4,
        files: 9,
    };
    let all = messages(&[root.to_owned()], limits);
    assert_eq!(
        all[..2],
        [
            "unreadable: larger than 4 bytes",
            "unreadable: not UTF-8 text"
        ]
    );
    assert!(all[2].starts_with("unreadable: No such file"), "{all:?}");
    fs::remove_file(root.join("b.yaml")).unwrap();
    fs::remove_file(root.join("c.yaml")).unwrap();
    let none = Limits {
        files: 0,
        ..Limits::default()
    };
    assert_eq!(
        messages(&[root.to_owned()], none),
        ["unreadable: more than 0 files"]
    );
}
