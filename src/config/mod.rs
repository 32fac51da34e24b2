//! One table of settings: parser, DescribeConfigs and printed reference follow from it.
