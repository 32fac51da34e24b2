//! Cluster metadata: the image, its records, the controller's decisions.
