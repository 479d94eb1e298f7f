//! Which providers could run a call, in the order to try them.

use waypoint_policy::{Action, Code, ProviderId, Refusal};

use crate::{Backend, Call, Provider, Rule};

/// A provider and the model it would be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The provider.
    pub provider: ProviderId,
    /// The provider's own name for the model.
    pub model: Box<str>,
}

impl Candidate {
    /// What policy is asked about this candidate.
    #[must_use]
    pub fn action<'a>(&'a self, call: &'a Call) -> Action<'a> {
        Action::Llm {
            provider: self.provider,
            requested: &call.model,
            upstream: &self.model,
            operation: Some(call.operation),
            max_output_tokens: call.max_output_tokens,
        }
    }
}

/// The first rule for the requested model, and its backends in the order to try them.
///
/// Within a priority the order is drawn by weight from `random`; higher priorities follow.
/// Backends of weight 0, of another dialect, without the operation or without the model are left
/// out, and so are those whose provider does not allow what the call asks for
/// (see [`Allowances`](crate::Allowances)). Only the first matching rule counts: a call never
/// reaches a later rule because an earlier one could not run it.
///
/// # Errors
/// [`Code::ModelNotFound`] if no rule or no backend of the rule has the model,
/// [`Code::OperationNotAllowed`] if none of the backends serves the operation.
pub fn candidates<'p>(
    rules: &[Rule],
    provider: impl Fn(ProviderId) -> Option<&'p Provider>,
    call: &Call,
    random: u64,
) -> Result<(usize, Vec<Candidate>), Refusal> {
    let Some((index, rule)) = rules
        .iter()
        .enumerate()
        .find(|(_, rule)| rule.matches(&call.model))
    else {
        return Err(Refusal::new(Code::ModelNotFound));
    };
    let mut serves_operation = false;
    let mut usable: Vec<(&Backend, Candidate)> = Vec::with_capacity(rule.backends.len());
    for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
        let Some(provider) = provider(backend.provider) else {
            continue;
        };
        if provider.dialect != call.dialect
            || !provider.operations.contains(&call.operation)
            || !provider.allowances.cover(call.needs)
        {
            continue;
        }
        serves_operation = true;
        let asked = backend.model.as_deref().unwrap_or(&call.model);
        let Some(model) = provider.upstream_model(asked) else {
            continue;
        };
        let candidate = Candidate {
            provider: provider.id,
            model: model.into(),
        };
        usable.push((backend, candidate));
    }
    if usable.is_empty() {
        return Err(if serves_operation {
            Refusal::new(Code::ModelNotFound)
        } else {
            Refusal::new(Code::OperationNotAllowed)
        });
    }
    Ok((index, order(usable, random)))
}

/// Sorts by priority; within one, draws without replacement in proportion to the weights.
fn order(mut usable: Vec<(&Backend, Candidate)>, mut random: u64) -> Vec<Candidate> {
    usable.sort_by_key(|(backend, _)| backend.priority);
    let mut ordered: Vec<Candidate> = Vec::with_capacity(usable.len());
    while let Some((first, _)) = usable.first() {
        let priority = first.priority;
        let group = usable
            .iter()
            .take_while(|(backend, _)| backend.priority == priority);
        let total: u64 = group.map(|(backend, _)| u64::from(backend.weight)).sum();
        let mut draw = next(&mut random) % total.max(1);
        let drawn = usable
            .iter()
            .position(|(backend, _)| {
                let weight = u64::from(backend.weight);
                let hit = draw < weight;
                draw = draw.saturating_sub(weight);
                hit
            })
            .unwrap_or(0);
        let (_, candidate) = usable.remove(drawn);
        if !ordered.contains(&candidate) {
            ordered.push(candidate);
        }
    }
    ordered
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
