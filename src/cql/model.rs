//! The data model as the checker sees it: classes, elements, conversions, primary code paths.
//!
//! A model is data (`schemas/model/*.model`, whose README describes the lines). FHIR 4.0.1, QI-Core and US Core are
//! embedded; class names are qualified everywhere (`FHIR.Observation`, `QICore.Encounter`).
//!
//! QI-Core and US Core are *derived*: their classes are views of FHIR's, with System types where FHIR has its own. Data
//! are FHIR resources all the same, so an element of a derived class resolves to a field of the FHIR class behind it,
//! and its [`ClassElement::target`] says how the field's value becomes the derived type.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use super::typed::{self, Alternative, Element, FixedCodes, FixedRule};
use super::types::Type;

/// Bases above a class; real models have six at most.
const DEPTH_MAX: usize = 32;
/// Elements by which QI-Core's profiles say that something was not done, or not asked for.
const NEGATING: [&str; 3] = ["status", "doNotPerform", "modifierExtension"];

macro_rules! embedded {
    ($($name:ident $version:literal $text:literal),+) => {$(
        static $name: LazyLock<Arc<Model>> = LazyLock::new(|| {
            Arc::new(Model::parse(include_str!($text)).expect("INVARIANT: the embedded models are tested to parse"))
        });
    )+
        /// What is embedded: name, version, description read at first use.
        static EMBEDDED: &[(&str, &str, &LazyLock<Arc<Model>>)] = &[$((model_name(stringify!($name)), $version, &$name)),+];
    };
}

embedded! {
    FHIR_4_0_1 "4.0.1" "../../schemas/model/FHIR-4.0.1.model",
    QI_CORE_4_1_1 "4.1.1" "../../schemas/model/QICore-4.1.1.model",
    QI_CORE_6_0_0 "6.0.0" "../../schemas/model/QICore-6.0.0.model",
    US_CORE_3_1_1 "3.1.1" "../../schemas/model/USCore-3.1.1.model",
    US_CORE_6_1_0 "6.1.0" "../../schemas/model/USCore-6.1.0.model",
    US_CORE_7_0_0 "7.0.0" "../../schemas/model/USCore-7.0.0.model"
}

/// `QI_CORE_6_0_0` is QICore.
const fn model_name(constant: &str) -> &'static str {
    match constant.as_bytes()[0] {
        b'F' => "FHIR",
        b'Q' => "QICore",
        _ => "USCore",
    }
}

/// The models that `using` may name.
#[derive(Debug, Clone, Default)]
pub struct Models {
    added: Vec<Arc<Model>>,
}

impl Models {
    /// The model of that name; of that version, if one is asked for, else the newest.
    pub fn get(&self, name: &str, version: Option<&str>) -> Option<&Arc<Model>> {
        let fits = |own: &str, other: &str| own == name && version.is_none_or(|wanted| wanted == other);
        let added = self.added.iter().find(|model| fits(&model.name, &model.version));
        added.or_else(|| EMBEDDED.iter().rev().find(|(own, other, _)| fits(own, other)).map(|(.., model)| &***model))
    }

    /// FHIR itself, whose classes data are instances of.
    pub fn fhir(&self) -> &Arc<Model> {
        self.get("FHIR", None).unwrap_or(&FHIR_4_0_1)
    }

    /// What the profile of that canonical URL fixes, for retrieves that name it; of the newest model that knows it.
    pub fn fixed_by(&self, profile: &str) -> Vec<FixedCodes> {
        of_profile(profile).map(|(model, class)| model.fixed(&class.name, self.fhir())).unwrap_or_default()
    }

    /// Adds a model, for example one that a test describes.
    pub fn add(&mut self, model: Model) {
        self.added.push(Arc::new(model));
    }

    /// Names with versions, as `FHIR 4.0.1`.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        let embedded = EMBEDDED.iter().map(|(name, version, _)| format!("{name} {version}"));
        embedded.chain(self.added.iter().map(|model| format!("{} {}", model.name, model.version)))
    }
}

/// The class that a profile is, by its canonical URL, in the newest model that knows it.
fn of_profile(profile: &str) -> Option<(&'static Model, &'static Class)> {
    let mut classes = EMBEDDED.iter().rev().flat_map(|(.., model)| model.classes.values().map(|class| (&****model, class)));
    classes.find(|(_, class)| class.retrieve.as_ref().is_some_and(|row| &*row.profile == profile))
}

/// The profiles, of all embedded models, of a FHIR resource by what they say of it: that it was not done or asked for (`negations`), or that it was.
fn opposites<'a>(instance: &'a str, negations: bool, fhir: &'a Model) -> impl Iterator<Item = Arc<str>> + 'a {
    let models = EMBEDDED.iter().filter(|(name, ..)| *name != "FHIR").map(|(.., model)| &****model);
    let of_resource = move |model: &'static Model| model.classes.values().filter(move |class| *model.instance_class(&class.name, fhir) == *instance);
    let rows = models.flat_map(of_resource).filter_map(|class| class.retrieve.as_ref());
    rows.filter(move |row| row.is_negation() == negations).map(|row| row.profile.clone())
}

/// Whether a code must not be there.
fn is_negated((_, code): &(Arc<str>, Arc<str>)) -> bool {
    code.starts_with('!')
}

/// One data model.
#[derive(Debug, Clone)]
pub struct Model {
    /// `FHIR`.
    pub name: Arc<str>,
    /// `4.0.1`.
    pub version: Arc<str>,
    /// `http://hl7.org/fhir`.
    pub url: Arc<str>,
    /// The qualified class of a patient.
    pub patient: Arc<str>,
    /// The path of the birth date from a patient: `birthDate.value`.
    pub birth_date: Arc<str>,
    /// Whether its classes are views of FHIR's.
    pub derived: bool,
    /// By qualified name.
    classes: BTreeMap<Arc<str>, Class>,
    /// Restricted System types without elements, by qualified name: `QICore.AddressUse`.
    aliases: BTreeMap<Arc<str>, Type>,
    /// Classes by what people call them, where that is not their name.
    labels: BTreeMap<Arc<str>, Arc<str>>,
    conversions: BTreeMap<Arc<str>, Vec<Conversion>>,
}

/// One class of a model.
#[derive(Debug, Clone)]
pub struct Class {
    /// Qualified.
    pub name: Arc<str>,
    /// A class of the model, or `Any`.
    pub base: Type,
    /// In a derived model: the FHIR class that instances are of, where it is not the one of the same name.
    pub of: Option<Arc<str>>,
    /// Present when `[…]` may name the class.
    pub retrieve: Option<Retrievable>,
    /// Its own elements, in the order of the model.
    pub elements: Vec<ClassElement>,
}

/// What makes a class retrievable.
#[derive(Debug, Clone)]
pub struct Retrievable {
    /// Canonical URL of its profile.
    pub profile: Arc<str>,
    /// The element that `[Class: codes]` compares, if the model names one.
    pub code_path: Option<Arc<str>>,
    /// What the profile fixes.
    pub fixed: Vec<Fixed>,
}

impl Retrievable {
    /// Whether the profile is of what was not done, or not asked for.
    fn is_negation(&self) -> bool {
        self.fixed.iter().any(|fixed| NEGATING.contains(&&*fixed.path) && !fixed.any_of.iter().all(is_negated))
    }
}

/// What a profile fixes of one element.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// The element; with `?` at its end: if it is there.
    pub path: Arc<str>,
    /// (system, code) of which one must be there; no system for a plain code. A code after `!` must not be there.
    pub any_of: Vec<(Arc<str>, Arc<str>)>,
}

/// One element of a class.
#[derive(Debug, Clone)]
pub struct ClassElement {
    /// Name in CQL.
    pub name: Arc<str>,
    /// Type; a choice for `value[x]`.
    pub ty: Type,
    /// Where a derived model finds it in the base model's data.
    pub target: Option<Arc<str>>,
}

/// An implicit conversion that the model declares.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversion {
    /// To this type.
    pub to: Type,
    /// The helper library: `FHIRHelpers`.
    pub library: Arc<str>,
    /// Its function: `ToConcept`.
    pub function: Arc<str>,
}

/// A line of a model description that says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelError {
    /// From 1.
    pub line: usize,
    /// What was expected.
    pub expected: &'static str,
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: expected {}", self.line, self.expected)
    }
}

impl Model {
    /// Reads a model description.
    ///
    /// # Errors
    /// The first line that is none of the forms of `schemas/model/README.md`.
    pub fn parse(text: &str) -> Result<Model, ModelError> {
        let mut lines = text.lines().zip(1usize..);
        let mut model = lines
            .next()
            .and_then(|(head, _)| Model::head(head))
            .ok_or(ModelError { line: 1, expected: "`model NAME VERSION URL PATIENT-CLASS BIRTH-DATE-PATH`" })?;
        let mut current: Option<Class> = None;
        for (line, number) in lines {
            let error = |expected| ModelError { line: number, expected };
            if let Some(rest) = line.strip_prefix("class ") {
                let class = model.class_line(rest).ok_or(error("`class NAME : BASE [retrieve PROFILE CODE-PATH]`"))?;
                model.close(current.replace(class));
            } else if let Some(rest) = line.strip_prefix("  ") {
                let element = model.element_line(rest).ok_or(error("`  NAME TYPE [= TARGET]`"))?;
                current.as_mut().ok_or(error("a class before its elements"))?.elements.push(element);
            } else if let Some((name, ty)) = line.strip_prefix("alias ").and_then(|rest| rest.split_once(' ')) {
                let ty = model.type_of(ty).ok_or(error("`alias NAME TYPE`"))?;
                model.aliases.insert(format!("{}.{name}", model.name).into(), ty);
            } else if let Some((name, label)) = line.strip_prefix("label ").and_then(|rest| rest.split_once(' ')) {
                model.labels.insert(label.into(), name.into());
            } else if let Some(rest) = line.strip_prefix("convert ") {
                model.convert_line(rest).ok_or(error("`convert FROM TO LIBRARY.FUNCTION`"))?;
            } else if !line.is_empty() {
                return Err(error("`class`, `convert` or an element"));
            }
        }
        model.close(current);
        Ok(model)
    }

    fn head(line: &str) -> Option<Model> {
        let mut words = line.strip_prefix("model ")?.split(' ');
        let (name, version, url) = (words.next()?, words.next()?, words.next()?);
        let patient = format!("{name}.{}", words.next()?);
        Some(Model {
            name: name.into(),
            version: version.into(),
            url: url.into(),
            patient: patient.into(),
            birth_date: words.next()?.into(),
            derived: words.next().is_some(),
            classes: BTreeMap::new(),
            aliases: BTreeMap::new(),
            labels: BTreeMap::new(),
            conversions: BTreeMap::new(),
        })
    }

    fn close(&mut self, class: Option<Class>) {
        if let Some(class) = class {
            self.classes.insert(class.name.clone(), class);
        }
    }

    fn class_line(&self, rest: &str) -> Option<Class> {
        let (name, rest) = rest.split_once(" : ")?;
        let mut words = rest.split(' ');
        let base = self.type_of(words.next()?)?;
        let mut class = Class { name: format!("{}.{name}", self.name).into(), base, of: None, retrieve: None, elements: Vec::new() };
        while let Some(word) = words.next() {
            match word {
                "is" => class.of = Some(format!("FHIR.{}", words.next()?).into()),
                "retrieve" => {
                    let profile = words.next()?.into();
                    let code_path = words.next().filter(|path| *path != "-").map(Arc::from);
                    class.retrieve = Some(Retrievable { profile, code_path, fixed: Vec::new() });
                }
                "fixed" => class
                    .retrieve
                    .as_mut()?
                    .fixed
                    .push(Fixed { path: words.next()?.into(), any_of: words.next()?.split(',').map(fixed_code).collect() }),
                _ => return None,
            }
        }
        Some(class)
    }

    fn element_line(&self, rest: &str) -> Option<ClassElement> {
        let (rest, target) = match rest.split_once(" = ") {
            Some((rest, target)) => (rest, Some(Arc::from(target))),
            None => (rest, None),
        };
        let (name, ty) = rest.split_once(' ')?;
        Some(ClassElement { name: name.into(), ty: self.type_of(ty)?, target })
    }

    fn convert_line(&mut self, rest: &str) -> Option<()> {
        let mut words = rest.split(' ');
        let Type::Class(from) = self.type_of(words.next()?)? else {
            return None;
        };
        let to = self.type_of(words.next()?)?;
        let (library, function) = words.next()?.split_once('.')?;
        let conversion = Conversion { to, library: library.into(), function: function.into() };
        self.conversions.entry(from).or_default().push(conversion);
        Some(())
    }

    /// A type as the description writes it: `Coding`, `System.Code`, `Coding*`, `A|B`, `(A|B)*`, `Interval<System.Date>`.
    fn type_of(&self, text: &str) -> Option<Type> {
        if let Some(inner) = text.strip_suffix('*') {
            let inner = inner.strip_prefix('(').and_then(|t| t.strip_suffix(')')).unwrap_or(inner);
            return self.type_of(inner).map(Type::list);
        }
        if text.contains('|') {
            return text.split('|').map(|part| self.type_of(part)).collect::<Option<Vec<_>>>().map(Type::choice);
        }
        if let Some(point) = text.strip_prefix("Interval<").and_then(|t| t.strip_suffix('>')) {
            return self.type_of(point).map(Type::interval);
        }
        match text.strip_prefix("System.") {
            Some(system) => Type::system(system),
            None if text.is_empty() => None,
            None if text.starts_with("FHIR.") => Some(Type::class(text)),
            None => Some(Type::Class(format!("{}.{text}", self.name).into())),
        }
    }

    /// The class of that qualified name.
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// The System type behind a restricted one: `QICore.AddressUse` is a String.
    pub fn alias(&self, name: &str) -> Option<&Type> {
        self.aliases.get(name)
    }

    /// The class that `[Name …]` retrieves: by name or label within this model.
    pub fn retrievable(&self, name: &str) -> Option<&Class> {
        let name = self.labels.get(name).map_or(name, |own| own);
        self.class(&format!("{}.{name}", self.name)).filter(|class| class.retrieve.is_some())
    }

    /// The FHIR class that instances of a class are of; of a model that is not derived the class itself.
    pub fn instance_class(&self, name: &str, fhir: &Model) -> Arc<str> {
        let lineage = self.lineage(name).filter(|_| self.derived);
        let of = lineage.map(|class| match (&class.of, &class.base) {
            (Some(of), _) => Some(of.clone()),
            (None, Type::Class(base)) if base.starts_with("FHIR.") => Some(base.clone()),
            (None, _) => fhir.class(&format!("FHIR.{}", class.name.split_once('.').map_or("", |(_, own)| own))).map(|class| class.name.clone()),
        });
        of.flatten().next().unwrap_or_else(|| name.into())
    }

    /// What retrieving the class fixes. Where a profile says that something was not done, or not asked for, those of the same resource that
    /// say that it was are its rivals, and it is theirs, in whatever version.
    pub fn fixed(&self, class: &str, fhir: &Model) -> Vec<FixedCodes> {
        let instance = self.instance_class(class, fhir);
        let Some(retrieve) = self.class(class).and_then(|class| class.retrieve.as_ref()) else { return Vec::new() };
        let opposites: Vec<Arc<str>> = if self.derived { opposites(&instance, !retrieve.is_negation(), fhir).collect() } else { Vec::new() };
        let resolve = |Fixed { path, any_of }: &Fixed| {
            let (element, _) = fhir.resolve(&instance, path.trim_end_matches('?'))?;
            let rule = match path.ends_with('?') {
                true => FixedRule::OneIfPresent,
                false if any_of.iter().all(is_negated) => FixedRule::None,
                false => FixedRule::One,
            };
            let rivals = self.other_categories(retrieve, path, any_of).filter(|rival| self.instance_class(&rival.name, fhir) == instance);
            let rivals = rivals.filter_map(|rival| Some(rival.retrieve.as_ref()?.profile.clone())).chain(opposites.iter().cloned()).collect();
            let any_of = any_of.iter().map(|(system, code)| (system.clone(), code.trim_start_matches('!').into()));
            Some(FixedCodes { path: vec![element], any_of: any_of.collect(), rule, profile: retrieve.profile.clone(), rivals })
        };
        let mut fixed: Vec<FixedCodes> = retrieve.fixed.iter().filter_map(resolve).collect();
        if fixed.is_empty() {
            // No code tells them apart, but a claim does.
            let rivals: Vec<Arc<str>> = opposites.into_iter().chain(self.siblings(class, &instance, fhir)).collect();
            let claims = FixedCodes { path: Vec::new(), any_of: Vec::new(), rule: FixedRule::None, profile: retrieve.profile.clone(), rivals };
            fixed.extend((!claims.rivals.is_empty()).then_some(claims));
        }
        fixed
    }

    /// The profiles of the model's other views of a FHIR resource, which neither are the class nor what it is: what claims to be a simple
    /// observation is no clinical result. A class that has the resource's own name is every such resource, whatever it claims.
    fn siblings(&self, class: &str, instance: &str, fhir: &Model) -> Vec<Arc<str>> {
        let is_whole = |name: &str| name.rsplit('.').next() == instance.rsplit('.').next();
        if !self.derived || is_whole(class) {
            return Vec::new();
        }
        let others = self
            .classes
            .values()
            .filter(|other| !is_whole(&other.name) && !self.is_a(&other.name, class) && !self.is_a(class, &other.name));
        let rows = others.filter(|other| *self.instance_class(&other.name, fhir) == *instance).filter_map(|other| other.retrieve.as_ref());
        rows.map(|row| row.profile.clone()).collect()
    }

    /// Classes that want another category in the same element.
    fn other_categories<'a>(&'a self, own: &'a Retrievable, path: &'a str, any_of: &'a [(Arc<str>, Arc<str>)]) -> impl Iterator<Item = &'a Class> + 'a {
        let is_other = move |Fixed { path: other, any_of: codes }: &Fixed| path.ends_with('?') && &**other == path && !any_of.iter().any(|code| codes.contains(code));
        let classes = self.classes.values();
        classes.filter(move |class| class.retrieve.as_ref().is_some_and(|row| row.profile != own.profile && row.fixed.iter().any(is_other)))
    }

    /// The classes that `[…]` may name, without qualifier.
    pub fn retrievable_names(&self) -> impl Iterator<Item = &str> {
        let prefix = self.name.len() + 1;
        self.classes.values().filter(|class| class.retrieve.is_some()).filter_map(move |class| class.name.get(prefix..))
    }

    /// All its classes, without qualifier.
    pub fn class_names(&self) -> impl Iterator<Item = &str> {
        let prefix = self.name.len() + 1;
        self.classes.keys().filter_map(move |name| name.get(prefix..))
    }

    /// The class and its bases, nearest first.
    pub fn lineage<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Class> {
        std::iter::successors(self.class(name), |class| match &class.base {
            Type::Class(base) => self.class(base),
            _ => None,
        })
        .take(DEPTH_MAX)
    }

    /// Whether `sub` is `base` or derives from it.
    pub fn is_a(&self, sub: &str, base: &str) -> bool {
        self.lineage(sub).any(|class| &*class.name == base)
    }

    /// The element of that name, own or inherited.
    pub fn element_of(&self, class: &str, name: &str) -> Option<&ClassElement> {
        self.lineage(class).find_map(|class| class.elements.iter().find(|element| &*element.name == name))
    }

    /// The names of all elements of a class, inherited ones included.
    pub fn element_names<'a>(&'a self, class: &str) -> impl Iterator<Item = &'a str> {
        self.lineage(class).flat_map(|class| class.elements.iter().map(|element| &*element.name))
    }

    /// The implicit conversions of a class: its own, else the nearest base's.
    pub fn conversions(&self, class: &str) -> &[Conversion] {
        self.lineage(class).find_map(|class| self.conversions.get(&class.name)).map_or(&[], Vec::as_slice)
    }

    /// The element with the places where JSON keeps it.
    pub fn resolve(&self, class: &str, name: &str) -> Option<(Element, Type)> {
        let element = self.element_of(class, name)?;
        let list = element.ty.is_list();
        let item = element.ty.element().unwrap_or(&element.ty);
        let alternatives = match item {
            Type::Choice(types) => types.iter().map(|ty| Alternative { field: choice_field(name, ty), ty: ty.clone() }).collect(),
            ty if name == "value" && self.is_primitive(class) => vec![Alternative { field: "".into(), ty: ty.clone() }],
            ty => vec![Alternative { field: name.into(), ty: ty.clone() }],
        };
        Some((Element { name: name.into(), alternatives, list }, element.ty.clone()))
    }

    /// The members that JSON can have of a class: name, type of one item, whether it is a list.
    pub fn fields(&self, class: &str) -> Vec<(Arc<str>, Type, bool)> {
        let elements = self.element_names(class).filter_map(|name| self.resolve(class, name));
        elements
            .flat_map(|(element, _)| {
                let is_list = element.list;
                element.alternatives.into_iter().map(move |one| (one.field, one.ty, is_list))
            })
            .collect()
    }

    /// All classes as evaluation needs them.
    pub fn typed_classes<'a>(&'a self, fhir: &'a Model) -> impl Iterator<Item = typed::Class> + 'a {
        self.classes.values().map(move |class| typed::Class {
            instance_of: self.derived.then(|| self.instance_class(&class.name, fhir)),
            name: class.name.clone(),
            base: match &class.base {
                Type::Class(base) => Some(base.clone()),
                _ => None,
            },
            primitive: self.element_of(&class.name, "value").map(|value| value.ty.clone()).filter(|_| self.is_primitive(&class.name)),
        })
    }

    /// Whether instances of the class are JSON scalars: `FHIR.string`, `FHIR.EncounterStatus`.
    pub fn is_primitive(&self, class: &str) -> bool {
        self.element_of(class, "value").is_some_and(|value| !matches!(value.ty, Type::Class(_) | Type::Choice(_)))
    }
}

/// `system|code`, or a code without system.
fn fixed_code(text: &str) -> (Arc<str>, Arc<str>) {
    let (system, code) = text.split_once('|').unwrap_or(("", text));
    (system.into(), code.into())
}

/// `value` + `FHIR.dateTime` = `valueDateTime`. SimpleQuantity is a profile: in JSON its elements are Quantities.
fn choice_field(name: &str, ty: &Type) -> Arc<str> {
    let written = ty.to_string();
    let simple = match written.rsplit('.').next().unwrap_or(&written) {
        "SimpleQuantity" => "Quantity",
        simple => simple,
    };
    let mut letters = simple.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    name.chars().chain(first).chain(letters).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fhir() -> Arc<Model> {
        Models::default().get("FHIR", Some("4.0.1")).expect("embedded").clone()
    }

    #[test]
    fn observations_have_their_elements_and_their_bases_elements() {
        let fhir = fhir();
        let (value, ty) = fhir.resolve("FHIR.Observation", "value").expect("value[x]");
        assert_eq!(value.alternatives[0], Alternative { field: "valueQuantity".into(), ty: Type::class("FHIR.Quantity") });
        assert_eq!(value.alternatives[9].field, "valueDateTime".into());
        assert!(matches!(ty, Type::Choice(_)));
        assert!(fhir.element_of("FHIR.Observation", "extension").is_some());
        assert!(fhir.is_a("FHIR.Observation", "FHIR.DomainResource"));
        assert!(!fhir.is_a("FHIR.DomainResource", "FHIR.Observation"));
        let observation = fhir.retrievable("Observation").expect("a resource");
        assert_eq!(observation.retrieve.as_ref().and_then(|r| r.code_path.as_deref()), Some("code"));
    }

    #[test]
    fn primitives_keep_their_value_in_the_scalar_itself() {
        let fhir = fhir();
        for (class, ty) in [("FHIR.string", Type::String), ("FHIR.dateTime", Type::DateTime), ("FHIR.EncounterStatus", Type::String)] {
            let (element, found) = fhir.resolve(class, "value").expect("a primitive's value");
            assert_eq!((&*element.alternatives[0].field, found), ("", ty), "{class}");
        }
        assert!(!fhir.is_primitive("FHIR.Quantity"));
        assert!(!fhir.is_primitive("FHIR.Observation"));
    }

    #[test]
    fn conversions_are_inherited() {
        let fhir = fhir();
        let to = |class: &str| fhir.conversions(class).iter().map(|c| format!("{} {}", c.to, c.function)).collect::<Vec<_>>();
        assert_eq!(to("FHIR.Age"), ["Quantity ToQuantity"]);
        assert_eq!(to("FHIR.CodeableConcept"), ["Concept ToConcept"]);
        assert_eq!(to("FHIR.Period"), ["Interval<DateTime> ToInterval"]);
        assert_eq!(to("FHIR.EncounterStatus"), ["String ToString"]);
        assert_eq!(to("FHIR.Observation"), Vec::<String>::new());
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = |text: &str| Model::parse(text).expect_err("a bad model").to_string();
        insta::assert_snapshot!(error("modell X"), @"line 1: expected `model NAME VERSION URL PATIENT-CLASS BIRTH-DATE-PATH`");
        insta::assert_snapshot!(error("model X 1 u P b\nclass A : B\n  name"), @"line 3: expected `  NAME TYPE [= TARGET]`");
    }
}
