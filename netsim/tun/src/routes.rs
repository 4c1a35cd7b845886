//! Who reaches whom over which link: shortest paths in links.

use std::collections::VecDeque;

/// For each node and each destination, the link that the first step takes; `None` for the node itself and
/// for what it cannot reach. Among paths of one length the one over links named first wins.
pub(crate) fn first_links(nodes: usize, links: &[(usize, usize)]) -> Vec<Vec<Option<usize>>> {
    (0..nodes)
        .map(|node| from_one(node, nodes, links))
        .collect()
}

fn from_one(start: usize, nodes: usize, links: &[(usize, usize)]) -> Vec<Option<usize>> {
    let mut first = vec![None; nodes];
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for (index, &(a, b)) in links.iter().enumerate() {
            let next = match node {
                n if n == a => b,
                n if n == b => a,
                _ => continue,
            };
            if next == start || first[next].is_some() {
                continue;
            }
            first[next] = if node == start {
                Some(index)
            } else {
                first[node]
            };
            queue.push_back(next);
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_through_its_middle_and_a_triangle_does_not() {
        let line = first_links(3, &[(0, 1), (1, 2)]);
        assert_eq!(line[0], [None, Some(0), Some(0)]);
        assert_eq!(line[1], [Some(0), None, Some(1)]);
        assert_eq!(line[2], [Some(1), Some(1), None]);

        let triangle = first_links(3, &[(0, 1), (1, 2), (2, 0)]);
        assert_eq!(triangle[0], [None, Some(0), Some(2)]);
    }

    #[test]
    fn what_no_link_reaches_has_no_route() {
        let pieces = first_links(3, &[(0, 1)]);
        assert_eq!(pieces[0], [None, Some(0), None]);
        assert_eq!(pieces[2], [None, None, None]);
    }
}
