//! What is wrong with the rest of an object of which a part could not be read.

use std::collections::HashSet;
use std::sync::Arc;

use crate::decode::Rest;
use crate::object::{Diagnostics, Object};
use crate::yaml::{Node, Position, Value};

/// Objects that are looked at again: each costs a compilation.
const OBJECTS_MAX: usize = 16;

/// Adds the errors of what is left of objects without what could not be read.
///
/// One object at a time is put in the place of itself, and of what `compile` then finds the errors
/// inside it count: what it lacks now may be missed by others, and by what is around the gap.
pub(super) fn report(
    objects: &[Object],
    rests: Vec<(usize, Rest)>,
    compile: impl Fn(&[Object]) -> Diagnostics,
    out: &mut Diagnostics,
) {
    if out.lost_objects() {
        return;
    }
    for (index, rest) in rests.into_iter().take(OBJECTS_MAX) {
        let mut objects = objects.to_vec();
        let Some(object) = objects.get_mut(index) else {
            continue;
        };
        let file = Arc::clone(&object.file);
        let mut inside = HashSet::new();
        places(&rest.node, &mut inside);
        object.replace(rest.node);
        let is_sure = |place: &Position| inside.contains(place) && !rest.around.contains(place);
        out.adopt(compile(&objects), |diagnostic| {
            let place = Position {
                line: diagnostic.line,
                col: diagnostic.col,
            };
            diagnostic.is_error() && *diagnostic.file == *file && is_sure(&place)
        });
    }
}

/// Every place at which something in this node can be found wrong.
fn places(node: &Node, into: &mut HashSet<Position>) {
    into.insert(node.at);
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                into.insert(entry.at);
                places(&entry.value, into);
            }
        }
        Value::List(items) => items.iter().for_each(|item| places(item, into)),
        _ => {}
    }
}
