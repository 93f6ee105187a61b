#include "config/node.hpp"

#include "config/testing.hpp"

namespace penstock::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::lines;
using ::testing::StartsWith;

struct Read {
  std::optional<Node> root;
  std::vector<std::string> mistakes;
};
Read read(std::string_view yaml) {
  Mistakes mistakes("f");
  Read out{.root = read_yaml(yaml, mistakes), .mistakes = {}};
  out.mistakes = lines(mistakes.take());
  return out;
}

TEST(Yaml, EveryValueKnowsItsPlace) {
  const auto [root, mistakes] = read("a: 1\nb:\n  - x\n  - {c: 'y'}\nd:\n");
  ASSERT_TRUE(root);
  EXPECT_THAT(mistakes, ElementsAre());
  ASSERT_EQ(root->children.size(), 3U);
  const Node& inner = root->children[1].children[1].children[0];
  EXPECT_EQ(inner.key, "c");
  EXPECT_EQ(inner.text, "y");
  EXPECT_TRUE(inner.quoted);
  EXPECT_FALSE(root->children[0].quoted);
  EXPECT_EQ(inner.key_mark.line, 4);
  EXPECT_EQ(inner.key_mark.column, 6);
  EXPECT_EQ(inner.mark.column, 9);
  EXPECT_EQ(root->children[2].kind, Node::Kind::null);
  EXPECT_EQ(root->children[2].mark.line, 5);  // of its name
}

// yaml-cpp keeps the last of two without a word: a limit would be overridden unseen.
TEST(Yaml, RepeatedNamesAreMistakesAndTheFirstStands) {
  const auto [root, mistakes] = read("a: 1\nb: 2\na: 3\na: 4\n");
  EXPECT_THAT(mistakes,
              ElementsAre("f:3:1: \"a\" stands here twice; the first is in line 1; keep one of them",
                          "f:4:1: \"a\" stands here twice; the first is in line 1; keep one of them"));
  ASSERT_TRUE(root);
  ASSERT_EQ(root->children.size(), 2U);
  EXPECT_EQ(root->children[0].text, "1");
}

TEST(Yaml, AliasesAreRefusedBeforeTheyAreExpanded) {
  std::string laughs = "a0: &a0 [x, x]\n";
  for (int i = 1; i < 40; ++i) {
    laughs += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) + ", *a" +
              std::to_string(i - 1) + "]\n";
  }
  const auto [root, mistakes] = read(laughs);
  EXPECT_FALSE(root);
  EXPECT_THAT(mistakes,
              ::testing::Contains("f:2:10: YAML aliases (*name) are not supported; write the value out"));
}

// `value: &word rest` would lose its first word, `value: !word` all of it. Neither is shown: it may be a
// password.
TEST(Yaml, AnchorsAndTagsAreRefusedAndNotShown) {
  for (const char* yaml : {"a: &canary b\n", "a: !canary b\n", "a: !!canary b\n", "a: &canary\n"}) {
    const auto [root, mistakes] = read(yaml);
    ASSERT_EQ(mistakes.size(), 1U) << yaml;
    EXPECT_THAT(mistakes[0], HasSubstr("not supported"));
    EXPECT_THAT(mistakes[0], ::testing::Not(HasSubstr("canary")));
  }
  const auto [root, mistakes] = read("a: *canary\n");
  ASSERT_EQ(mistakes.size(), 1U);
  EXPECT_THAT(mistakes[0], ::testing::Not(HasSubstr("canary")));
}

TEST(Yaml, DepthSizeAndCountAreBounded) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(read(nested(kMaxDepth)).root);
  EXPECT_THAT(read(nested(kMaxDepth + 1)).mistakes, ElementsAre("f:1:33: nested deeper than 32"));
  EXPECT_EQ(read(std::string(200'000, '[')).mistakes.size(), 1U);  // whatever it is taken for
  EXPECT_THAT(read(std::string(kMaxConfigBytes + 1, '#')).mistakes,
              ElementsAre("f:1:1: the file is larger than 4 MiB"));
}

TEST(Yaml, AMillionBracketsAreRefusedBeforeTheyCostMemory) {
  EXPECT_THAT(read(std::string(1'000'000, '[')).mistakes,
              ElementsAre("f:1:1: the file holds more than 500000 values"));
}

// yaml-cpp takes byte 4 for the end of the file: what follows would be dropped unseen.
TEST(Yaml, ControlCharactersAndOtherEncodingsAreRefused) {
  EXPECT_THAT(read("a: 1\n\x04"
                   "b: 2\n")
                  .mistakes,
              ElementsAre("f:2:1: control character 0x04; the file must be plain UTF-8 text"));
  EXPECT_THAT(read("a: \xff\xfe\n").mistakes,
              ElementsAre("f:1:1: the file is not valid UTF-8; save it as UTF-8"));
  EXPECT_THAT(read(std::string_view("a\0b", 3)).mistakes,
              ElementsAre(HasSubstr("f:1:2: control character 0x00")));
}

TEST(Yaml, OneDocumentOnly) {
  EXPECT_THAT(read("a: 1\n---\nb: 2\n").mistakes,
              ElementsAre(StartsWith("f:2:1: the file holds more than one YAML document")));
  EXPECT_TRUE(read("---\na: 1\n").root);
}

TEST(Yaml, BrokenSyntaxHasItsPlace) {
  EXPECT_THAT(read("a:\n  b: [1, 2\nc: 3\n").mistakes, ElementsAre(StartsWith("f:3:2: not valid YAML")));
  EXPECT_THAT(read("a: b: c\n").mistakes, ElementsAre(StartsWith("f:1:5: not valid YAML")));
}

TEST(Yaml, NamesMustBeText) {
  EXPECT_THAT(read("[a]: 1\n").mistakes, ElementsAre(HasSubstr("a field's name must be text")));
  EXPECT_THAT(read("~: 1\n").mistakes, ElementsAre(HasSubstr("a field's name must be text")));
}

TEST(Yaml, EmptyIsNothing) {
  for (const char* yaml : {"", "\n", "# only this\n", "---\n"}) {
    const auto [root, mistakes] = read(yaml);
    ASSERT_TRUE(root) << yaml;
    EXPECT_EQ(root->kind, Node::Kind::null);
    EXPECT_TRUE(mistakes.empty());
  }
}

}  // namespace
}  // namespace penstock::config
