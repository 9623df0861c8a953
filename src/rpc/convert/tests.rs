//! There and back, bit for bit.

use super::*;
use crate::analysis::{
    Compat, ErgColumns, EsdColumns, FitColumns, LayerReport, ModelIdentity, MpColumns, Naming, NormColumns,
    Options, PartialColumns, RandomColumns, Status, Summary, VectorColumns, summarize,
};
use crate::layer::{Conv, LayerOptions};
use crate::rpc::proto::v1;
use crate::source::ObjectIdentity;
use crate::spectrum::MethodChoice;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::Message;
use std::collections::BTreeMap;

/// Numbers that a careless conversion would change.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        Just(-0.0),
        Just(f64::MAX),
        Just(f64::MIN),
        Just(f64::MIN_POSITIVE),
        Just(5e-324),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        any::<f64>().prop_filter("not NaN", |x| !x.is_nan()),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("a.weight".to_owned()), any::<String>()]
}

/// Draws columns, each of which may be absent.
struct Draw(TestRunner);

impl Draw {
    fn one<S: Strategy>(&mut self, strategy: S) -> S::Value {
        strategy.new_tree(&mut self.0).unwrap().current()
    }

    fn real(&mut self) -> Option<f64> {
        self.one(of(number()))
    }

    fn count(&mut self) -> Option<u64> {
        self.one(of(any::<u64>()))
    }

    fn whole(&mut self) -> Option<i64> {
        self.one(of(any::<i64>()))
    }

    fn flag(&mut self) -> Option<bool> {
        self.one(of(any::<bool>()))
    }

    fn text(&mut self) -> Option<String> {
        self.one(of(text()))
    }

    fn name(&mut self) -> String {
        self.one(text())
    }

    fn word(&mut self, list: &'static [&'static str]) -> Option<&'static str> {
        self.one(of(sample::select(list)))
    }

    fn group<T: Clone + std::fmt::Debug>(&mut self, group: T) -> Option<T> {
        self.one(of(Just(group)))
    }
}

/// A struct whose fields are drawn by the methods of `Draw` that stand before them.
macro_rules! draw {
    ($draw:ident $type:ident $($kind:ident: [$($field:ident)*])* ; $($other:ident: $value:expr),*) => {
        crate::analysis::$type { $($($field: $draw.$kind(),)*)* $($other: $value),* }
    };
}

fn partial(d: &mut Draw) -> PartialColumns {
    draw!(d PartialColumns real: [residual_max alpha_error] count: [k certified_up_to];
        certificate: d.word(super::words::CERTIFICATES))
}

fn esd(d: &mut Draw) -> EsdColumns {
    draw!(d EsdColumns real: [sv_max sv_min lambda_max noise_floor]
        count: [num_evals rank_loss weak_rank_loss];
        method: d.word(super::words::METHODS))
}

fn fit(d: &mut Draw) -> FitColumns {
    draw!(d FitColumns real: [alpha xmin xmax d d_two_sided sigma alpha_lo alpha_hi]
        whole: [num_pl_spikes] flag: [xmin_tied];)
}

fn norms(d: &mut Draw) -> NormColumns {
    draw!(d NormColumns count: [matrix_rank]
        real: [norm log_norm spectral_norm log_spectral_norm alpha_weighted log_alpha_norm stable_rank entropy];)
}

fn erg(d: &mut Draw) -> ErgColumns {
    draw!(d ErgColumns count: [detx_num num_erg_spikes] whole: [erg_gap]
        real: [detx_val detx_val_unrescaled delta_lambda_min];)
}

fn mp(d: &mut Draw) -> MpColumns {
    draw!(d MpColumns whole: [num_spikes] flag: [mp_converged]
        real: [sigma_mp mp_softrank w_scale bulk_max bulk_min mp_distance];)
}

fn random(d: &mut Draw) -> RandomColumns {
    draw!(d RandomColumns whole: [rand_num_spikes num_traps] count: [seed]
        real: [max_rand_eval rand_distance rand_wasserstein ww_softrank ww_maxdist rand_sigma_mp
            rand_mp_softrank rand_w_scale rand_bulk_max rand_bulk_min];)
}

fn vectors(d: &mut Draw) -> VectorColumns {
    draw!(d VectorColumns real: [tail_localization_ratio tail_participation_ratio tail_vector_entropy
        bulk_localization_ratio bulk_participation_ratio bulk_vector_entropy];)
}

fn row(d: &mut Draw) -> LayerReport {
    let (partial, erg, mp) = (partial(d), erg(d), mp(d));
    let (random, vectors) = (random(d), vectors(d));
    draw!(d LayerReport count: [layer_id n m rf slice_id block] real: [q]
        text: [layer_type reason detail warning role digest] name: [name longname tensor dtype];
        status: d.one(sample::select(vec![Status::Success, Status::Failed, Status::Skipped])),
        has_esd: d.one(any::<bool>()),
        esd: esd(d), fit: fit(d), norms: norms(d),
        partial: d.group(partial), erg: d.group(erg), mp: d.group(mp),
        random: d.group(random), vectors: d.group(vectors),
        shape: d.one(proptest::collection::vec(any::<u64>(), 0..5)),
        parameters: d.one(any::<u64>()))
}

/// `Debug` of an f64 is its shortest decimal that reads back to the same bits, so equal texts are equal bits.
fn shown(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

#[test]
fn rows_survive_the_wire_bit_for_bit() {
    let mut draw = Draw(TestRunner::deterministic());
    let (mut with_groups, mut without) = (0, 0);
    for _ in 0..4000 {
        let row = row(&mut draw);
        if row.erg.is_some() && row.random.is_some() {
            with_groups += 1
        } else {
            without += 1
        }
        let message = v1::LayerResult::from(&row);
        let back = LayerReport::try_from(message.clone()).unwrap();
        assert_eq!(shown(&back), shown(&row));
        let decoded = v1::LayerResult::decode(message.encode_to_vec().as_slice()).unwrap();
        assert_eq!(shown(&LayerReport::try_from(decoded).unwrap()), shown(&row));
    }
    assert!(with_groups > 500 && without > 500, "{with_groups} {without}");
}

/// The JSON names of a message's fields, with those of the messages in it instead of these.
fn json_names(message: &str) -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(crate::rpc::proto::DESCRIPTORS).unwrap().file;
    let mut messages = files.iter().flat_map(|file| &file.message_type);
    let found = messages.find(|found| found.name() == message).unwrap();
    let names = found.field.iter().flat_map(|field| match field.r#type() {
        prost_types::field_descriptor_proto::Type::Message => {
            json_names(field.type_name().rsplit('.').next().unwrap())
        }
        _ => vec![field.json_name().to_owned()],
    });
    names.collect()
}

/// A client that takes columns from field.json_name has those of the reports.
#[test]
fn json_names_are_the_columns_of_reports() {
    let row = LayerReport {
        partial: Some(Default::default()),
        erg: Some(Default::default()),
        mp: Some(Default::default()),
        random: Some(Default::default()),
        vectors: Some(Default::default()),
        ..LayerReport::default()
    };
    let mut columns: Vec<String> =
        serde_json::to_value(&row).unwrap().as_object().unwrap().keys().cloned().collect();
    let mut names = json_names("LayerResult");
    columns.sort_unstable();
    names.sort_unstable();
    assert_eq!(names, columns);
}

#[test]
fn a_row_with_an_unknown_word_names_tensor_and_column() {
    let good = v1::LayerResult { tensor: "t".to_owned(), status: 1, ..Default::default() };
    assert!(LayerReport::try_from(good.clone()).is_ok());
    let partial = v1::PartialSpectrum { certificate: Some("perhaps".to_owned()), ..Default::default() };
    for (bad, message) in [
        (v1::LayerResult { status: 0, ..good.clone() }, "tensor 't': field 'status': is not set"),
        (
            v1::LayerResult { status: 9, ..good.clone() },
            "tensor 't': field 'status': 9 is no status that we know",
        ),
        (
            v1::LayerResult { method: Some("magic".to_owned()), ..good.clone() },
            "tensor 't': field 'method': unknown word 'magic': we know gram, svd, randomized",
        ),
        (
            v1::LayerResult { partial: Some(partial), ..good },
            "tensor 't': field 'partial.certificate': unknown word 'perhaps': we know certified, ruled-out, uncertified, exact",
        ),
    ] {
        assert_eq!(LayerReport::try_from(bad).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_summary_survives_and_its_words_are_those_of_summarize() {
    let mut rows: Vec<LayerReport> = Vec::new();
    for alpha in [1.5, 3.0, 8.0] {
        let mut row = LayerReport { status: Status::Success, has_esd: true, ..LayerReport::default() };
        (row.name, row.tensor, row.role) = (format!("l{alpha}"), format!("t{alpha}"), Some("q".to_owned()));
        row.warning = Some("over-trained".to_owned());
        row.fit.alpha = Some(alpha);
        let norms = &mut row.norms;
        (norms.log_norm, norms.alpha_weighted, norms.log_alpha_norm) = (Some(0.1), Some(0.2), Some(0.3));
        (norms.log_spectral_norm, norms.stable_rank) = (Some(-0.0), Some(5e-324));
        row.mp = Some(crate::analysis::MpColumns { mp_softrank: Some(0.7), ..Default::default() });
        rows.push(row);
    }
    rows.push(LayerReport { reason: Some("BIAS".to_owned()), ..LayerReport::default() });
    let tensors = BTreeMap::from([("t1.5".to_owned(), 7)]);
    let summary = summarize(&rows, &tensors, &Options::default());
    // every mean that a summary can have is a known word, and no other
    let mut known = super::words::MEANS.to_vec();
    known.sort_unstable();
    assert_eq!(summary.means.keys().copied().collect::<Vec<_>>(), known);
    assert_eq!((summary.worst.len(), summary.by_role.len()), (2, 1));
    let message = v1::Summary::from(&summary);
    let decoded = v1::Summary::decode(message.encode_to_vec().as_slice()).unwrap();
    assert_eq!(shown(&Summary::try_from(decoded).unwrap()), shown(&summary));
    let mut odd = message;
    odd.means.insert("beta".to_owned(), 1.0);
    let error = Summary::try_from(odd).unwrap_err().to_string();
    assert!(error.starts_with("field 'means': unknown word 'beta'"), "{error}");
}

#[test]
fn an_identity_survives() {
    let pinned = ObjectIdentity { uri: "s3://b/m".to_owned(), size: u64::MAX, pin: Some("\"e\"".to_owned()) };
    let identity = ModelIdentity {
        uri: "s3://b/m/".to_owned(),
        format: "safetensors",
        files: vec![pinned.clone(), ObjectIdentity { pin: None, ..pinned }],
        metadata: BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), String::new())]),
        notes: vec!["note".to_owned()],
    };
    let message = v1::ModelIdentity::from(&identity);
    let decoded = v1::ModelIdentity::decode(message.encode_to_vec().as_slice()).unwrap();
    assert_eq!(shown(&ModelIdentity::try_from(decoded).unwrap()), shown(&identity));
    let odd = v1::ModelIdentity { format: "gguf".to_owned(), ..message };
    let error = ModelIdentity::try_from(odd).unwrap_err().to_string();
    assert_eq!(error, "s3://b/m/: field 'identity.format': unknown word 'gguf': we know safetensors");
}

/// Options as the command line can give them.
fn options() -> impl Strategy<Value = Options> {
    let compat = proptest::sample::select(vec![Compat::None, Compat::Ww077]);
    let conv = proptest::sample::select(vec![Conv::Pool, Conv::Slices, Conv::Flatten, Conv::Operator]);
    let method = prop_oneof![
        Just(MethodChoice::Auto),
        Just(MethodChoice::Svd),
        Just(MethodChoice::Randomized(None)),
        (3..u64::MAX).prop_map(|k| MethodChoice::Randomized(Some(k))),
    ];
    let flags = proptest::array::uniform6(any::<bool>());
    let limits = proptest::array::uniform4(proptest::option::of(any::<u64>()));
    (compat, conv, method, flags, limits, 1_u64..=65_536).prop_map(
        |(compat, conv, method, on, limits, grid)| {
            let asked = crate::analysis::Asked {
                compat,
                layers: Vec::new(),
                conv,
                grid: (conv == Conv::Operator).then_some(grid),
                split_gates: on[0],
                split_fused: on[1],
                method,
                erg: on[2],
                mp: on[3],
                randomize: on[4],
                vectors: on[5],
                seed: limits[0],
                min_evals: limits[1],
                max_evals: limits[2],
                max_n: limits[3],
            };
            // those that contradict themselves are replaced by what is left of them
            asked.options(Naming::Flags).unwrap_or(Options { method, seed: limits[0], ..Options::default() })
        },
    )
}

proptest! {
    #[test]
    fn options_survive(options in options(), layers in proptest::collection::vec("[a-z*?.]{0,9}", 0..4)) {
        let message = options_to_proto(&options, &layers);
        let decoded = v1::AnalysisOptions::decode(message.encode_to_vec().as_slice()).unwrap();
        prop_assert_eq!(options_from_proto(Some(&decoded)).unwrap(), (options, layers));
    }
}

#[test]
fn options_left_out_are_the_defaults() {
    let (none, empty) = (options_from_proto(None), options_from_proto(Some(&v1::AnalysisOptions::default())));
    assert_eq!(none.unwrap(), (Options::default(), Vec::new()));
    assert_eq!(empty.unwrap(), (Options::default(), Vec::new()));
    let compat = v1::AnalysisOptions { compat: 1, ..Default::default() };
    assert_eq!(options_from_proto(Some(&compat)).unwrap().0, Options::ww_0_7_7(Conv::Pool));
    let grid = v1::AnalysisOptions { conv: 4, ..Default::default() };
    let layers = LayerOptions { conv: Conv::Operator, ..LayerOptions::default() };
    assert_eq!(options_from_proto(Some(&grid)).unwrap().0.layers, layers);
}

#[test]
fn wrong_options_name_the_field() {
    let of = |change: fn(&mut v1::AnalysisOptions)| {
        let mut options = v1::AnalysisOptions::default();
        change(&mut options);
        options_from_proto(Some(&options)).unwrap_err().to_string()
    };
    assert_eq!(of(|o| o.compat = 7), "field 'options.compat': 7 is no value that we know");
    assert_eq!(of(|o| o.conv = -1), "field 'options.conv': -1 is no value that we know");
    assert_eq!(
        of(|o| o.method = "randomized:2".to_owned()),
        "field 'options.method': 'randomized:2': the number of eigenvalues must be a whole number of at least 3"
    );
    assert_eq!(
        of(|o| o.grid = Some(4)),
        "field 'options.grid': is the grid of options.conv CONV_OPERATOR alone"
    );
}
