//! There and back, bit for bit.

use super::*;
use crate::analysis::{Compat, LayerReport, ModelIdentity, Naming, Options, Status, Summary, summarize};
use crate::layer::{Conv, LayerOptions};
use crate::rpc::proto::v1;
use crate::source::ObjectIdentity;
use crate::spectrum::MethodChoice;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
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

fn words(list: &'static [&'static str]) -> impl Strategy<Value = Option<&'static str>> {
    proptest::option::of(proptest::sample::select(list))
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("a.weight".to_owned()), any::<String>()]
}

/// A struct with each field drawn by the strategy that stands for its type.
macro_rules! draw {
    ($runner:ident, $type:ident { $($field:ident: $strategy:expr),* $(,)? }) => {
        crate::analysis::$type { $($field: draw(&$strategy, $runner)),* }
    };
}

fn draw<S: Strategy>(strategy: &S, runner: &mut proptest::test_runner::TestRunner) -> S::Value {
    strategy.new_tree(runner).unwrap().current()
}

fn row(r: &mut proptest::test_runner::TestRunner) -> LayerReport {
    use proptest::option::of;
    let (real, count, whole) = (of(number()), of(any::<u64>()), of(any::<i64>()));
    let erg = draw!(
        r,
        ErgColumns {
            detx_num: count,
            num_erg_spikes: count,
            erg_gap: whole,
            detx_val: real,
            detx_val_unrescaled: real,
            delta_lambda_min: real,
        }
    );
    let mp = draw!(
        r,
        MpColumns {
            num_spikes: whole,
            sigma_mp: real,
            mp_softrank: real,
            w_scale: real,
            bulk_max: real,
            bulk_min: real,
            mp_distance: real,
            mp_converged: of(any::<bool>()),
        }
    );
    let random = draw!(
        r,
        RandomColumns {
            max_rand_eval: real,
            rand_distance: real,
            rand_wasserstein: real,
            ww_softrank: real,
            ww_maxdist: real,
            rand_num_spikes: whole,
            num_traps: whole,
            rand_sigma_mp: real,
            rand_mp_softrank: real,
            rand_w_scale: real,
            rand_bulk_max: real,
            rand_bulk_min: real,
            seed: count,
        }
    );
    let vectors = draw!(
        r,
        VectorColumns {
            tail_localization_ratio: real,
            tail_participation_ratio: real,
            tail_vector_entropy: real,
            bulk_localization_ratio: real,
            bulk_participation_ratio: real,
            bulk_vector_entropy: real,
        }
    );
    let partial = draw!(
        r,
        PartialColumns {
            k: count,
            certificate: words(super::words::CERTIFICATES),
            certified_up_to: count,
            residual_max: real,
            alpha_error: real,
        }
    );
    let esd = draw!(
        r,
        EsdColumns {
            num_evals: count,
            sv_max: real,
            sv_min: real,
            rank_loss: count,
            weak_rank_loss: count,
            lambda_max: real,
            method: words(super::words::METHODS),
            noise_floor: real,
        }
    );
    let fit = draw!(
        r,
        FitColumns {
            alpha: real,
            xmin: real,
            xmax: real,
            d: real,
            d_two_sided: real,
            sigma: real,
            num_pl_spikes: whole,
            alpha_lo: real,
            alpha_hi: real,
            xmin_tied: of(any::<bool>()),
        }
    );
    let norms = draw!(
        r,
        NormColumns {
            norm: real,
            log_norm: real,
            spectral_norm: real,
            log_spectral_norm: real,
            alpha_weighted: real,
            log_alpha_norm: real,
            stable_rank: real,
            matrix_rank: count,
            entropy: real,
        }
    );
    let status = proptest::sample::select(vec![Status::Success, Status::Failed, Status::Skipped]);
    draw!(
        r,
        LayerReport {
            layer_id: count,
            name: text(),
            longname: text(),
            layer_type: of(text()),
            n: count,
            m: count,
            rf: count,
            q: real,
            slice_id: count,
            status: status,
            reason: of(text()),
            detail: of(text()),
            warning: of(text()),
            has_esd: any::<bool>(),
            esd: Just(esd.clone()),
            partial: of(Just(partial.clone())),
            fit: Just(fit.clone()),
            norms: Just(norms.clone()),
            erg: of(Just(erg.clone())),
            mp: of(Just(mp.clone())),
            random: of(Just(random.clone())),
            vectors: of(Just(vectors.clone())),
            tensor: text(),
            dtype: text(),
            shape: proptest::collection::vec(any::<u64>(), 0..5),
            parameters: any::<u64>(),
            role: of(text()),
            block: count,
            digest: of(text()),
        }
    )
}

/// `Debug` of an f64 is its shortest decimal that reads back to the same bits, so equal texts are equal bits.
fn shown(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

#[test]
fn rows_survive_the_wire_bit_for_bit() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut with_groups, mut without) = (0, 0);
    for _ in 0..4000 {
        let row = row(&mut runner);
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
