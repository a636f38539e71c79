//! A measure that another system counts: what of a `measure.yaml` says how something is computed, and so makes no sense in it.

use std::sync::Arc;

use super::{Definition, key, word};
use crate::diagnostic::yaml::locate;
use crate::diagnostic::{Diagnostic, SourceFile};
use crate::measure::population::{Aggregate, PopulationCode, Scoring};

/// Everything in it that only a measure has which is computed here.
pub(super) fn check(source: &Arc<SourceFile>, definition: &Definition, found: &mut Vec<Diagnostic>) {
    let Definition { library, parameters, stratifiers, composite_scoring, components, groups, supplemental_data, .. } = definition;
    let is_basis = key(source, "basis").span.start < source.text.len() as u32;
    let computing = [
        ("basis", is_basis),
        ("library", library.is_some()),
        ("parameters", !parameters.is_empty()),
        ("stratifiers", !stratifiers.is_empty()),
        ("composite-scoring", composite_scoring.is_some()),
        ("components", !components.is_empty()),
        ("groups", !groups.is_empty()),
        ("supplemental-data", !supplemental_data.is_empty()),
    ];
    let out = "remove it; or remove `counted: elsewhere`, if the measure is computed here";
    for (name, _) in computing.iter().filter(|(_, is_there)| *is_there) {
        let message = format!("`{name}` says how a measure is computed, and this one is counted elsewhere");
        found.push(Diagnostic::error(message).at(key(source, name)).help(out));
    }
    if definition.scoring == Scoring::Composite {
        let finding = Diagnostic::error("a composite is computed of its components, and this one is counted elsewhere").at(key(source, "scoring"));
        found.push(finding.help("name the scoring of the numbers that come: proportion, ratio, continuous-variable or cohort"));
    }
    if definition.plausibility.cannot_tell_percent.is_some() {
        let place = key(source, "plausibility").first("cannot-tell-percent");
        found.push(
            Diagnostic::error("of a count that comes from elsewhere nobody is told who cannot be counted")
                .at(place)
                .help("remove it"),
        );
    }
    for population in &definition.populations {
        let logic = Some(&population.define)
            .filter(|define| !define.value.is_empty())
            .or(population.cannot_tell.first().map(|doubt| &doubt.define));
        if let Some(logic) = logic {
            let message = format!("`{}` is decided by `{}`, and the measure is counted elsewhere", population.id(), logic.value);
            found.push(Diagnostic::error(message).at(locate(source, logic)).help(out));
        }
        if let (PopulationCode::MeasureObservation, Some(of)) = (population.code, &population.of) {
            // One number stands for all that was observed.
            let is_sum = matches!(population.aggregate, Some(Aggregate::Sum | Aggregate::Count));
            if is_sum || definition.scoring == Scoring::Ratio {
                let message = format!("a {} that is counted elsewhere has no observation that adds up", word(definition.scoring));
                let help = "of a ratio give what was summed up as its numerator and denominator; of a continuous variable an average, median, minimum or maximum";
                found.push(Diagnostic::error(message).at(locate(source, of)).help(help));
            }
        }
    }
}
