// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.20;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// A token with six decimals for tests, placed by its code alone: nothing is set by a constructor, and anybody may mint.
contract Dollar is ERC20 {
    constructor() ERC20("", "") {}

    function name() public pure override returns (string memory) {
        return "USD Coin";
    }

    function symbol() public pure override returns (string memory) {
        return "USDC";
    }

    function decimals() public pure override returns (uint8) {
        return 6;
    }

    function mint(address to, uint256 value) external {
        _mint(to, value);
    }

    /// Several transfers in one transaction.
    function transferMany(address[] calldata to, uint256[] calldata values) external {
        for (uint256 i = 0; i < to.length; i++) _transfer(msg.sender, to[i], values[i]);
    }

    /// What a token of single pieces logs: the same event with a fourth topic and no data.
    function transferPiece(address to, uint256 piece) external {
        bytes32 transferred = keccak256("Transfer(address,address,uint256)");
        assembly {
            log4(0, 0, transferred, caller(), to, piece)
        }
    }
}
