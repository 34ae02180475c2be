//! A set of gates: those that the recipe switched off, and those that a row would have failed.
//!
//! In:    `data.allow`; faults of rows.
//! Out:   whether a fault passes.
//! Never: drops a fault unseen: one that passes is put into the row's findings, which reports count.

use planner::plan::Gate;

use crate::row_error::RowError;

/// A set of gates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Gates(u16);

impl Gates {
    /// The set of `gates`.
    pub(crate) fn of(gates: &[Gate]) -> Gates {
        gates.iter().fold(Gates::default(), |set, gate| Gates(set.0 | bit(*gate)))
    }

    /// Every gate.
    pub(crate) fn all() -> Gates {
        Gates(u16::MAX)
    }

    /// Whether `gate` is in the set.
    pub(crate) fn contains(self, gate: Gate) -> bool {
        self.0 & bit(gate) != 0
    }

    /// Adds `gate`.
    pub(crate) fn insert(&mut self, gate: Gate) {
        self.0 |= bit(gate);
    }

    /// Lets `fault` pass where its gate is switched off (`self` is `data.allow`), and notes that; else gives it back.
    pub(crate) fn pass(self, fault: RowError, findings: &mut Gates) -> Result<(), RowError> {
        match fault.gate().filter(|gate| self.contains(*gate)) {
            Some(gate) => {
                findings.insert(gate);
                Ok(())
            }
            None => Err(fault),
        }
    }
}

fn bit(gate: Gate) -> u16 {
    1 << gate as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_passes_only_where_its_gate_is_switched_off_and_is_noted() {
        let mut findings = Gates::default();
        let allowed = Gates::of(&[Gate::EmptyAnswer]);
        assert_eq!(allowed.pass(RowError::EmptyAnswer, &mut findings), Ok(()));
        assert!(findings.contains(Gate::EmptyAnswer) && !findings.contains(Gate::Roles));
        assert_eq!(allowed.pass(RowError::NothingTrained, &mut findings), Err(RowError::NothingTrained));
        let shape = RowError::Shape { reason: "x".to_owned() };
        assert_eq!(allowed.pass(shape.clone(), &mut findings), Err(shape));
    }
}
