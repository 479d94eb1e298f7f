//! What objects about agents have in common: their targets, and callers.

use waypoint_policy::{Caller, ObjectRef};

use super::{Served, token};
use crate::compile::draft::Drafts;
use crate::compile::set::Set;
use crate::compile::{gateway, targets};
use crate::object::{At, Diagnostics, Object, is_label, is_name};
use crate::raw::agent as raw;

/// What an object about agents is read with.
pub(in crate::compile) struct Reader<'c> {
    pub(in crate::compile) set: &'c Set<'c>,
    pub(in crate::compile) drafts: &'c Drafts<'c>,
    pub(in crate::compile) served: &'c Served,
    pub(in crate::compile) object: &'c Object,
    /// What messages call the object.
    pub(in crate::compile) noun: &'static str,
}

impl Reader<'_> {
    /// What the object is attached to, and whether any of it is served here.
    pub(in crate::compile) fn targets(
        &self,
        refs: &[raw::TargetRef],
        out: &mut Diagnostics,
    ) -> (Vec<ObjectRef>, bool) {
        let mark = out.len();
        let targets = targets::all(self.set, self.object, refs, out);
        let whole = !out.errors_since(mark);
        let here = targets
            .iter()
            .any(|target| self.served.objects.contains(target));
        if whole && !here && !self.elsewhere(&targets) {
            let message = format!(
                "nothing that this {} is attached to is served, so it has no effect",
                self.noun
            );
            let at = self.object.spec().key("targetRefs");
            out.warning(at, "not-attached", message);
        }
        (targets, here)
    }

    /// Whether a target may belong to another waypoint among the objects read.
    fn elsewhere(&self, targets: &[ObjectRef]) -> bool {
        gateway::ours(self.set).len() > 1 && !targets.is_empty()
    }

    pub(in crate::compile) fn callers(
        &self,
        from: &[raw::Caller],
        at: At<'_>,
        out: &mut Diagnostics,
    ) -> Vec<Caller> {
        if from.is_empty() {
            let message = "`from` is empty, so nobody matches; name somebody";
            out.error(at, "empty-list", message);
        }
        let mut callers = Vec::new();
        for (index, caller) in from.iter().enumerate() {
            let at = at.index(index);
            if caller.spiffe.is_none()
                && caller.service_account.is_none()
                && caller.namespace.is_none()
                && caller.jwt.is_none()
            {
                let message =
                    "an entry of `from` needs `spiffe`, `serviceAccount`, `namespace` or `jwt`";
                out.error(at, "bad-value", message);
            }
            let own = &self.object.name.namespace;
            let account = caller.service_account.as_ref().map(|account| {
                let at = at.key("serviceAccount");
                let namespace = account.namespace.as_deref().unwrap_or(own);
                label(namespace, at.key("namespace"), out);
                if !is_name(&account.name) {
                    let message = format!("`{}` is not a lower-case DNS name", account.name);
                    out.error(at.key("name"), "bad-name", message);
                }
                (namespace.into(), account.name.as_str().into())
            });
            if let Some(namespace) = &caller.namespace {
                label(namespace, at.key("namespace"), out);
            }
            callers.push(Caller {
                spiffe: caller.spiffe.as_ref().map(|spiffe| spiffe.0.clone()),
                service_account: account,
                namespace: caller.namespace.as_deref().map(Into::into),
                jwt: (caller.jwt.as_ref()).map(|raw| token::compile(raw, at.key("jwt"), out)),
            });
        }
        callers
    }
}

fn label(text: &str, at: At<'_>, out: &mut Diagnostics) {
    if !is_label(text) {
        out.error(
            at,
            "bad-name",
            format!("`{text}` is not a lower-case DNS label"),
        );
    }
}
