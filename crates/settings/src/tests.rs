//! Holds: what is said to a program that is not ours, in its own words.

use crate::{Collector, Document, Environment, Kind, Place, Preset, Schema, Scope, Section, Setting, Written};

const COLOUR: Setting = Setting {
    path: "lamp.colour",
    kind: Kind::OneOf(&["red", "green"]),
    preset: Preset::Text("red"),
    doc: "What it shines in.",
};
const WATTS: Setting =
    Setting { path: "lamp.watts", kind: Kind::Integer { min: 1, max: 60 }, preset: Preset::Integer(5), doc: "Power." };
const CODE: Setting = Setting {
    path: "lamp.code",
    kind: Kind::Secret,
    preset: Preset::Absent { example: "\"four digits\"" },
    doc: "Who may switch it.",
};
const PLACE: Setting =
    Setting { path: "place", kind: Kind::Text, preset: Preset::Required { example: "\"hall\"" }, doc: "Where it is." };

const LAMPS: Schema = Schema {
    prefix: "LAMP_",
    example_command: "lamp example",
    sections: &[Section { name: "lamp", settings: &[&COLOUR, &WATTS, &CODE] }],
    lists: &[Section { name: "switches", settings: &[&PLACE] }, Section { name: "lamp.bulbs", settings: &[&PLACE] }],
    later: &["dimmer"],
};

fn variables(list: &[(&str, &str)]) -> Environment {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What the file and variables say, and every fault, one a line.
fn read(text: &str, environment: &[(&str, &str)]) -> (Document, String) {
    let faults = Collector::default();
    let mut document = Document::parse(text, &faults);
    LAMPS.check_keys(&document, &faults);
    LAMPS.apply_environment(&mut document, &variables(environment), &faults);
    let scope = Scope::root(&document, &faults);
    scope.text(&COLOUR);
    scope.integer(&WATTS);
    scope.secret(&CODE);
    for list in ["switches", "lamp.bulbs"] {
        scope.entries(list).iter().for_each(|entry| drop(entry.text(&PLACE)));
    }
    let said: Vec<String> = faults.finish().iter().map(|fault| fault.describe("lamp.toml")).collect();
    (document, said.join("\n"))
}

#[test]
fn every_fault_is_told_with_its_place_in_the_words_of_the_program() {
    let text = "[lamp]\ncolor = \"red\"\nshape = 1\nwatts = 100\n[[switches]]\nplce = \"hall\"\n[dimmer]\n";
    let variables =
        [("LAMP_LAMP__COLOUR", "blue"), ("LAMP_SWITCHES__0__PLACE", "x"), ("LAMP_LAMP_WATTS", "3"), ("X", "y")];
    let said = read(text, &variables).1;
    assert_eq!(
        said,
        "lamp.toml:2:1: unknown key lamp.color; did you mean colour?\n\
         lamp.toml:3:1: unknown key lamp.shape; `lamp example` shows all\n\
         lamp.toml:4:9: lamp.watts 100 is out of range: 1 to 60\n\
         lamp.toml:5:1: switches[0].place is missing; for example \"hall\"\n\
         lamp.toml:6:1: unknown key plce; did you mean place?\n\
         lamp.toml:7:2: [dimmer] is not in this version\n\
         LAMP_LAMP_WATTS: is no setting; did you mean LAMP_LAMP__WATTS?\n\
         LAMP_LAMP__COLOUR: lamp.colour \"blue\" is none of red, green\n\
         LAMP_SWITCHES__0__PLACE: lamp.bulbs and switches can only be set in the file"
    );
}

#[test]
fn a_flag_comes_over_a_variable_and_only_its_own_program_is_listened_to() {
    let (mut document, said) = read("lamp.watts = 1", &[("LAMP_LAMP__WATTS", "2"), ("OTHER_LAMP__WATTS", "3")]);
    assert_eq!(said, "");
    let watts = |document: &Document| Scope::root(document, &Collector::default()).integer(&WATTS);
    assert_eq!(watts(&document), 2);
    LAMPS.apply_flag(&mut document, &WATTS, "--watts", "4");
    assert_eq!(watts(&document), 4);
    assert_eq!(Scope::root(&document, &Collector::default()).place(&WATTS), Place::Flag("--watts"));
}

#[test]
fn the_example_shows_every_setting_and_equals_the_defaults() {
    let example = LAMPS.example("# Lamps.");
    assert_eq!(
        example,
        "# Lamps.\n\n[lamp]\n# What it shines in.\ncolour = \"red\"\n# Power. 1 to 60.\nwatts = 5\n# Who may switch it.\n\
         # code = \"four digits\"\n# code_file = \"/run/secrets/code\"\n\n#  Any number of these.\n# [[switches]]\n\
         #   Where it is.\n# place = \"hall\"\n\n#  Any number of these.\n# [[lamp.bulbs]]\n#   Where it is.\n# place = \"hall\"\n"
    );
    let written = |text: &str| {
        let (document, said) = read(text, &[]);
        assert_eq!(said, "");
        Written::of(&LAMPS, text, &document, &document)
    };
    let (defaults, shown) = (written(""), written(&example));
    assert_eq!(defaults.differing(&shown), Vec::<&str>::new());
    assert!(defaults.is_empty() && !shown.is_empty() && shown.has("lamp") && !shown.has("switches"));
    assert_eq!(shown.differing(&written("lamp.watts = 6")), ["lamp.watts"]);
}

#[test]
fn a_list_inside_a_section_is_read_and_its_faults_have_their_places() {
    let fine = "[lamp]\nwatts = 2\n[[lamp.bulbs]]\nplace = \"top\"\n[[lamp.bulbs]]\nplace = \"side\"\n";
    let (document, said) = read(fine, &[]);
    assert_eq!(said, "");
    let faults = Collector::default();
    let places = |document: &Document| -> Vec<String> {
        Scope::root(document, &faults).entries("lamp.bulbs").iter().map(|entry| entry.text(&PLACE)).collect()
    };
    assert_eq!(places(&document), ["top", "side"]);
    let written = |text: &str| {
        let document = read(text, &[]).0;
        Written::of(&LAMPS, text, &document, &document)
    };
    assert_eq!(written(fine).differing(&written(&fine.replace("side", "back"))), ["lamp.bulbs"]);
    let bad = "[lamp]\nwatts = 2\n[[lamp.bulbs]]\n[[lamp.bulbs]]\nplace = 3\nplaces = 1\n[[lamp.bulb]]\n";
    let said = read(bad, &[("LAMP_LAMP__BULBS__0__PLACE", "x")]).1;
    assert_eq!(
        said,
        "lamp.toml:3:1: lamp.bulbs[0].place is missing; for example \"hall\"\n\
         lamp.toml:5:9: lamp.bulbs[1].place must be a text in quotes, not a number\n\
         lamp.toml:6:1: unknown key places; did you mean place?\n\
         lamp.toml:7:8: unknown key lamp.bulb; did you mean bulbs?\n\
         LAMP_LAMP__BULBS__0__PLACE: lamp.bulbs and switches can only be set in the file"
    );
    let said = read("[lamp]\nbulbs = 3\n", &[]).1;
    assert_eq!(said, "lamp.toml:2:9: lamp.bulbs is a list: write [[lamp.bulbs]] with two brackets");
}
