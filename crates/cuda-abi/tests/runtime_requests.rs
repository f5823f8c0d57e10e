//! Every question that NVIDIA's runtimes 11.8 to 13.5 ask of `cuGetProcAddress` has its answer.

use harp_cuda_abi::proc_address::lookup;

const REQUESTS: &str = include_str!("../../../proto/abi/cudart-requests.tsv");

#[test]
fn runtimes_get_the_exports_they_mean() {
    let mut asked = 0;
    for line in REQUESTS.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, version, flags, export, runtimes] = fields[..] else {
            panic!("{line:?}")
        };
        let answer = lookup(name, version.parse().unwrap(), flags.parse().unwrap());
        let expected = if export == "-" { None } else { Some(export) };
        assert_eq!(
            answer.ok(),
            expected,
            "{name} {version} {flags}, asked by {runtimes}"
        );
        asked += 1;
    }
    assert!(asked > 500, "only {asked} questions");
}
