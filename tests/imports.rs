//! The modules of the core have no import cycle: no module imports itself, directly or through other modules. `mod.rs` and tests
//! may import any module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Item, ItemMod, UseTree};

/// The modules of the core that each module of the core imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_core_module_imports_itself_through_other_modules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan");
    let imports = imports(&root);
    assert!(
        imports["diff"].contains("compare"),
        "the known import of `compare` in `diff` was not found: {imports:?}"
    );
    assert_eq!(cycle(&imports), None);
}

#[test]
fn cycle_returns_the_modules_of_an_import_cycle() {
    let of = |pairs: &[(&str, &str)]| {
        let mut imports = Imports::new();
        for (from, to) in pairs {
            imports.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            imports.entry((*to).to_owned()).or_default();
        }
        cycle(&imports)
    };
    assert_eq!(of(&[("a", "b"), ("b", "c"), ("a", "c")]), None);
    let found = of(&[("a", "b"), ("b", "c"), ("c", "b")]).expect("a cycle");
    assert!(found == "b -> c -> b" || found == "c -> b -> c", "{found}");
}

#[test]
fn paths_finds_every_form_of_import() {
    let mut found = Paths::new(2);
    found.visit_file(
        &syn::parse_file(
            "use super::super::{a::{self, X}, b}; use crate::plan::c::Y; use super::own;
             fn f() { let _ = crate::plan::d::g(); } #[cfg(test)] mod tests { use crate::plan::e; }",
        )
        .expect("Rust"),
    );
    assert_eq!(found.heads, ["a", "b", "c", "d"].map(str::to_owned).into());
}

/// Returns the modules below `root` that each top-level module below `root` imports.
fn imports(root: &Path) -> Imports {
    let mut imports = Imports::new();
    for file in files(root) {
        let relative = file
            .strip_prefix(root)
            .expect("a path below the root")
            .with_extension("");
        let mut parts: Vec<_> = relative
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        if parts.last().is_some_and(|last| last == "mod") {
            parts.pop();
        }
        if parts.is_empty() || parts.last().is_some_and(|last| last == "tests") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a readable file");
        let mut paths = Paths::new(parts.len());
        paths.visit_file(&syn::parse_file(&text).expect("Rust"));
        imports.entry(parts[0].clone()).or_default().extend(paths.heads);
    }
    let known: BTreeSet<_> = imports.keys().cloned().collect();
    for (module, imported) in &mut imports {
        imported.retain(|other| other != module && known.contains(other));
    }
    imports
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a readable folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    let files = paths.flat_map(below);
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// Collects the first segment after `crate::plan` of every path in a file.
struct Paths {
    /// The number of levels between `crate::plan` and the file's module.
    depth: usize,
    heads: BTreeSet<String>,
}

impl Paths {
    fn new(depth: usize) -> Self {
        Self {
            depth,
            heads: BTreeSet::new(),
        }
    }

    fn add(&mut self, path: &[String]) {
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        let head = if path.len() > 2 && path[0] == "crate" && path[1] == "plan" {
            path.get(2)
        } else if supers == self.depth {
            path.get(supers)
        } else {
            None
        };
        self.heads.extend(head.cloned());
    }

    fn add_tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |segment: &syn::Ident| [before, &[segment.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) => self.add(&with(&name.ident)),
            UseTree::Rename(rename) => self.add(&with(&rename.ident)),
            UseTree::Glob(_) => self.add(before),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.add_tree(before, item)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        let is_test = |module: &ItemMod| module.ident == "tests";
        match item {
            Item::Mod(module) if is_test(module) => {}
            Item::Use(import) => self.add_tree(&[], &import.tree),
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&segments);
        visit::visit_path(self, path);
    }
}

/// Returns an import cycle as `a -> b -> a`, or None if no cycle exists.
fn cycle(imports: &Imports) -> Option<String> {
    fn from<'a>(imports: &'a Imports, way: &mut Vec<&'a str>, done: &mut BTreeSet<&'a str>) -> Option<String> {
        let last = *way.last()?;
        for next in &imports[last] {
            if let Some(begin) = way.iter().position(|module| module == next) {
                let mut cycle = way[begin..].to_vec();
                cycle.push(next);
                return Some(cycle.join(" -> "));
            }
            if !done.contains(next.as_str()) {
                way.push(next);
                let found = from(imports, way, done);
                if found.is_some() {
                    return found;
                }
                way.pop();
            }
        }
        done.insert(last);
        None
    }
    let mut done = BTreeSet::new();
    imports
        .keys()
        .find_map(|module| from(imports, &mut vec![module], &mut done))
}
