//! Holds: how the models share what a node runs at once.

/// Of what a node runs at once, one model leaves this part to the others: one whose server hangs must not have it all.
const LEFT_TO_OTHERS: usize = 8;
/// What all models together may run beyond `concurrency`, as its part, shared evenly: several whose servers hang must
/// not have it all either.
const BEYOND: usize = 2;

/// Whether one more task of a model may run beside so many of it and in all, of `models` that share `all`.
pub(super) fn has_room((of_model, of_all): (usize, usize), all: usize, models: usize) -> bool {
    let each = if models > 1 { all - all.div_ceil(LEFT_TO_OTHERS).min(all - 1) } else { all };
    let least = if models > 1 { (all / (BEYOND * models)).max(1) } else { 0 };
    of_model < each && (of_all < all || of_model < least)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many run of each model once each has as many waiting as it likes, in this order.
    fn fill(all: usize, models: usize) -> Vec<usize> {
        let mut running = vec![0; models];
        for model in 0..models {
            while has_room((running[model], running.iter().sum()), all, models) {
                running[model] += 1;
            }
        }
        running
    }

    #[test]
    fn models_that_hang_leave_some_room_to_each_other() {
        assert_eq!(fill(256, 1), [256]);
        assert_eq!(fill(256, 2), [224, 64]);
        assert_eq!(fill(256, 4), [224, 32, 32, 32]);
        assert_eq!(fill(1, 3), [1, 1, 1]);
        assert_eq!(fill(16, 20).iter().filter(|running| **running == 0).count(), 0);
    }
}
