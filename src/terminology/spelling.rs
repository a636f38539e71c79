//! How a code is written that is meant to be another: without its point, in other letters, without the zeros it begins with.

/// Units are told apart by their letters alone.
const UCUM: &str = "http://unitsofmeasure.org";
/// A code that is found in another system than its own says something if it is as long, or longer where it is a number.
const TELLING_CHARS_MIN: usize = 5;
const TELLING_DIGITS_MIN: usize = 6;

/// What the spellings of one code have in common: its letters and digits; of a number without the zeros it begins with.
///
/// ```
/// use watershed::terminology::spelling::common;
///
/// assert_eq!(common("K50.90"), common("k5090 "));
/// assert_eq!(common("08"), common("8"));
/// assert_ne!(common("K50.90"), common("K50.9"));
/// ```
pub fn common(code: &str) -> String {
    let letters: String = code.chars().filter(|sign| sign.is_alphanumeric()).map(|sign| sign.to_ascii_uppercase()).collect();
    let number = letters.trim_start_matches('0');
    let is_number = !number.is_empty() && letters.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { number.to_owned() } else { letters }
}

/// Whether two codes of a system are spellings of one.
pub fn alike(system: &str, one: &str, other: &str) -> bool {
    system != UCUM && common(one) == common(other)
}

/// How data write a code most often that do not write it as its system does: of ICD without the point, of a number without the zeros it
/// begins with.
pub fn usual_slip(code: &str) -> Option<String> {
    let slip = if code.contains('.') { code.replace('.', "") } else { code.trim_start_matches('0').to_owned() };
    let is_number = || code.bytes().all(|byte| byte.is_ascii_digit());
    (!slip.is_empty() && slip != code && (code.contains('.') || is_number())).then_some(slip)
}

/// Whether a code says what it means without its system: it is none of many by chance.
pub fn is_telling(code: &str) -> bool {
    let digits = code.bytes().filter(u8::is_ascii_digit).count();
    let is_number = digits == code.len();
    digits > 0 && code.len() >= if is_number { TELLING_DIGITS_MIN } else { TELLING_CHARS_MIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_code_are_alike_and_others_are_not() {
        let icd = "http://hl7.org/fhir/sid/icd-10-cm";
        let table = [
            (icd, "K50.90", "K5090", true),
            (icd, "K50.90", "k50.90", true),
            (icd, "K50.90", "K50.90 ", true),
            (icd, "K50.90", "K50.9", false),
            ("http://hl7.org/fhir/sid/cvx", "08", "8", true),
            ("http://hl7.org/fhir/sid/cvx", "08", "80", false),
            ("http://loinc.org", "4548-4", "45484", true),
            ("http://loinc.org", "4548-4", "4584-4", false),
            ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "AMB", "amb", true),
            (UCUM, "m", "M", false),
            ("http://local", "000", "0", false),
        ];
        for (system, one, other, expected) in table {
            assert_eq!(alike(system, one, other), expected, "{one} {other}");
        }
        let slips = ["K50.90", "08", "1988-5", "AMB", "0DB64Z3", "00"].map(usual_slip);
        assert_eq!(slips, [Some("K5090".to_owned()), Some("8".to_owned()), None, None, None, None]);
        assert_eq!(["K50.90", "99213", "197361", "AMB", "final"].map(is_telling), [true, false, true, false, false]);
    }
}
