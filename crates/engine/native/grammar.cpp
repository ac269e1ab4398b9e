// Translates JSON schemas into grammars, with the five files of llama.cpp's `common` that can. All of `common` would take
// as long to compile as all of llama.cpp: it is chat formats and command lines, of which nothing is used here.

#include "json.cpp"
#include "json-schema.cpp"
#include "json-schema-to-grammar.cpp"
#include "trie.cpp"
#include "unicode.cpp"

#include "llama.h"

#include <cstdlib>
#include <cstring>
#include <exception>

// What these files take from common.cpp.

std::string string_join(const std::vector<std::string> & values, const std::string & separator) {
    std::string joined;
    for (const auto & value : values) {
        joined += (&value == values.data() ? "" : separator) + value;
    }
    return joined;
}

std::vector<std::string> string_split(const std::string & text, const std::string & separator) {
    std::vector<std::string> parts;
    size_t start = 0;
    for (size_t end; (end = text.find(separator, start)) != std::string::npos; start = end + separator.size()) {
        parts.push_back(text.substr(start, end - start));
    }
    parts.push_back(text.substr(start));
    return parts;
}

std::string string_repeat(const std::string & text, size_t times) {
    std::string repeated;
    while (times-- > 0) {
        repeated += text;
    }
    return repeated;
}

// Exceptions must not reach Rust: they end the process there.

// The grammar's text, for free(), or nothing where the schema cannot be translated.
extern "C" char * batchin_grammar_of(const char * schema) {
    try {
        return strdup(json_schema_to_grammar(common_json::parse(schema)).c_str());
    } catch (const std::exception &) {
        return nullptr;
    }
}

// A matcher of the grammar, or nothing where it is none.
extern "C" llama_sampler * batchin_matcher(const llama_vocab * vocab, const char * grammar) {
    try {
        return llama_sampler_init_grammar(vocab, grammar, "root");
    } catch (const std::exception &) {
        return nullptr;
    }
}

// Whether the grammar took the token.
extern "C" bool batchin_accept(llama_sampler * matcher, llama_token token) {
    try {
        llama_sampler_accept(matcher, token);
        return true;
    } catch (const std::exception &) {
        return false;
    }
}
